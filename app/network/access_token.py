"""The access token: read once at the start, compared with the token of each request.

It comes from a file or from the variable NODE_WHISPER_TOKEN, never from a flag, whose values every
user of the machine can see. The loop thread compares, before it reads a byte of the body.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

VARIABLE = "NODE_WHISPER_TOKEN"

LEAST, ADVISED, MOST = 8, 16, 256
"""Characters of a token. Fewer than `LEAST` can be guessed over a network; 16 random ones
cannot. `MOST` stays well below the header limit of HTTP servers."""

_log = structlog.get_logger("access_token")


class AccessTokenError(Exception):
    """The token cannot be used; the message tells the user why."""


class AccessToken:
    """The node's token. With None every request is admitted."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode("ascii")

    @property
    def open(self) -> bool:
        """True if requests need no token."""
        return self._token is None

    def admits(self, token: str | None) -> bool:
        """Return whether a request with `token` is admitted. Takes the same time for every wrong
        token of one length."""
        if self._token is None:
            return True
        # JSON can hold lone surrogates, which UTF-8 cannot: compare them as unequal, do not fail.
        given = (token or "").encode("utf-8", "surrogatepass")
        return hmac.compare_digest(given, self._token)


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token from the first line of `file` or from the variable; None if neither is set.

    Raises `AccessTokenError`.
    """
    # Empty is unset, as compose files write it.
    variable = environment.get(VARIABLE)
    if file is None:
        return _checked(variable, VARIABLE) if variable else None
    if variable:
        raise AccessTokenError(f"--token-file and {VARIABLE} are both set; remove one of them")
    try:
        with file.open("rb") as source:
            line = source.readline(4 * MOST)
            exposed = bool(os.fstat(source.fileno()).st_mode & 0o004)
    except OSError as error:
        raise AccessTokenError(f"--token-file: {file} cannot be read: {error.strerror}") from None
    token = _checked(line.decode("utf-8", "replace").strip(), f"--token-file: {file}")
    if exposed:
        _log.warning("every user of this machine can read the token; chmod o-r it", file=str(file))
    return token


def _checked(token: str, source: str) -> str:
    # The token itself never goes into a message.
    if not token:
        raise AccessTokenError(
            f"{source}: the first line is empty; put a token of random characters there"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise AccessTokenError(
            f"{source}: a token consists of printable ASCII characters without spaces"
        )
    if not LEAST <= len(token) <= MOST:
        raise AccessTokenError(
            f"{source}: a token has {LEAST} to {MOST} characters; this one has {len(token)}"
        )
    if len(token) < ADVISED:
        _log.warning("the token is short; use a longer one", characters=len(token), advised=ADVISED)
    return token
