"""The identity of a node or a person at the broker, from a file; and the broker's addresses.

Three kinds of files are read: a `.creds` file (a user's JWT and seed, as `nsc` writes it), the seed
of an nkey, and one line `user:password`. Seeds are Ed25519 keys in base32 (nats-io/nkeys). PyNaCl
signs with them and is imported only then. Main thread.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+([A-Za-z0-9._=-]+)\s+-+END [A-Z ]+-+")
_SEED_PREFIX, _USER_PREFIX = 18 << 3, 20 << 3
"""The first bits of a seed and of a user's key, which print as S and U."""


class CredentialsError(Exception):
    """The file or the address cannot be used. `str()` is one line for the user."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows the broker. All None: nothing."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    jwt: str | None = field(default=None, repr=False)
    public_key: str | None = None
    sign: Callable[[str], bytes] | None = field(default=None, repr=False)
    """Sign the broker's nonce; base64."""


def read_urls(text: str) -> tuple[str, ...]:
    """Return the addresses in `text`, which are separated by commas. Raises `CredentialsError`."""
    urls = tuple(part.strip() for part in text.split(",") if part.strip())
    if not urls:
        raise CredentialsError("the address is empty; name one such as nats://broker:4222")
    for url in urls:
        _check_url(url)
    if len({url.partition("://")[0] for url in urls}) > 1:
        raise CredentialsError("all addresses must begin with nats://, or all with tls://")
    return urls


def read_credentials(path: Path | None) -> Credentials:
    """Read the file; None is nobody. Raises `CredentialsError`."""
    if path is None:
        return Credentials()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CredentialsError(f"cannot read {path}: {reason}") from None
    blocks = dict(_BLOCK.findall(text))
    try:
        if blocks:
            return _keys(blocks["USER NKEY SEED"], blocks["NATS USER JWT"])
        if re.fullmatch(r"S[A-Z2-7]{50,60}", text):
            return _keys(text, None)
    except (KeyError, ValueError):
        raise CredentialsError(f"{path} holds no valid key of a user") from None
    user, colon, password = text.partition(":")
    if not colon or not user or not password or "\n" in text:
        raise CredentialsError(
            f"{path} must hold a .creds file, the seed of an nkey, or one line user:password"
        )
    return Credentials(user=user, password=password)


def readable_by_others(path: Path) -> bool:
    """Return whether other users than its owner can read the file."""
    try:
        return bool(os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise CredentialsError(
            f"{_hidden(url)} is not an address such as nats://broker:4222"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise CredentialsError(
            f"{_hidden(url)} contains a password or token, which other users of this machine can"
            " see; put it into a file for --queue-credentials"
        )
    if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0:
        raise CredentialsError(f"{url} is not an address such as nats://broker:4222")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise CredentialsError(f"{url} has more than a host and a port")


def _hidden(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else "the address"


def _keys(seed: str, jwt: str | None) -> Credentials:
    """Raises `ValueError` for a damaged seed."""
    from nacl.signing import SigningKey

    key = SigningKey(_seed_bytes(seed))
    public = bytes([_USER_PREFIX]) + bytes(key.verify_key)

    def sign(nonce: str) -> bytes:
        return base64.b64encode(key.sign(nonce.encode()).signature)

    return Credentials(jwt=jwt, public_key=_base32(public), sign=sign)


def _seed_bytes(seed: str) -> bytes:
    """Return the 32 bytes of the seed of a user's key, its checksum verified."""
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    data, checksum = raw[:-2], raw[-2:]
    if len(raw) != 36 or _checksum(data) != checksum or data[0] & 0xF8 != _SEED_PREFIX:
        raise ValueError("not a seed")
    if (data[0] & 7) << 5 | data[1] >> 3 != _USER_PREFIX:
        raise ValueError("not the seed of a user")
    return data[2:]


def _base32(data: bytes) -> str:
    return base64.b32encode(data + _checksum(data)).decode().rstrip("=")


def _checksum(data: bytes) -> bytes:
    # CRC-16/XMODEM, little-endian.
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
