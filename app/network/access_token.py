"""Who is let in: the token a request has to show, and how open to strangers an address is.

The token comes from a file or from the variable NODE_WHISPER_TOKEN, never from a flag, whose values
every user of the machine can see. It is read once, at the start. Comparing happens on the loop
thread, before a byte of the body is read.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import structlog

VARIABLE = "NODE_WHISPER_TOKEN"

LEAST, ADVISED, MOST = 8, 16, 256
"""Characters of a token. Fewer than `LEAST` can be guessed over a network; 16 random ones cannot.
`MOST` keeps it well within what an HTTP server takes as a header."""

_log = structlog.get_logger("access_token")


class AccessTokenError(Exception):
    """There is no usable token; the message is a sentence for the user."""


class AccessToken:
    """Compares what a request shows with the node's token; with None everybody is let in."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode("ascii")

    @property
    def open(self) -> bool:
        """True if no token is asked for."""
        return self._token is None

    def admits(self, token: str | None) -> bool:
        """Whether a request that shows `token` may come in. Takes the same time for every wrong
        token of a length."""
        if self._token is None:
            return True
        # JSON can hold what UTF-8 cannot; it has to compare, not to fail.
        shown = (token or "").encode("utf-8", "surrogatepass")
        return hmac.compare_digest(shown, self._token)


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token from `file`'s first line or from the variable, None where neither is given.

    Raises `AccessTokenError`.
    """
    # Empty is unset, as compose files write it.
    variable = environment.get(VARIABLE)
    if file is None:
        return _checked(variable, VARIABLE) if variable else None
    if variable:
        raise AccessTokenError(f"--token-file and {VARIABLE} are both given: leave one of them out")
    try:
        with file.open("rb") as source:
            line = source.readline(4 * MOST)
            exposed = bool(os.fstat(source.fileno()).st_mode & 0o004)
    except OSError as error:
        raise AccessTokenError(f"--token-file: {file} cannot be read: {error.strerror}") from None
    token = _checked(line.decode("utf-8", "replace").strip(), f"--token-file: {file}")
    if exposed:
        _log.warning("every user of this machine can read the token", file=str(file))
    return token


def _checked(token: str, source: str) -> str:
    # The token itself never goes into a message.
    if not token:
        raise AccessTokenError(
            f"{source}: its first line is empty; a token of random characters stands there"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise AccessTokenError(f"{source}: a token is of printable ASCII characters without spaces")
    if not LEAST <= len(token) <= MOST:
        raise AccessTokenError(
            f"{source}: a token has {LEAST} to {MOST} characters, this one has {len(token)}"
        )
    if len(token) < ADVISED:
        _log.warning("the token is short", characters=len(token), advised=ADVISED)
    return token


def reachable_by_others(host: str) -> bool:
    """True if listening on `host` lets other machines in: it is not only the loopback.

    A name counts as what it resolves to; one that does not resolve cannot be listened on either.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    # Behind % stands the interface, which the older Pythons do not read.
    addresses = {str(address[0]).partition("%")[0] for *_, address in found}
    return not all(ipaddress.ip_address(address).is_loopback for address in addresses)
