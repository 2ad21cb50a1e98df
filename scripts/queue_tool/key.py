"""`key`: makes the key pair (nkey) of a user of the broker."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import sys
from pathlib import Path

from app.queue.credentials import read_credentials
from queue_tool.broker import QueueError

_SEED, _USER = 18 << 3, 20 << 3
"""The first bits of a seed and of a user's key (nats-io/nkeys)."""


def make_key(path: Path) -> int:
    """Write a new seed into `path`, readable by its owner only, and print the public key, which
    belongs into the broker's configuration. Raises `QueueError` if the file exists."""
    try:
        # Exclusive: a seed that is overwritten locks its user out.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise QueueError("exists", f"{path} exists: remove it first, or choose another") from None
    except OSError as error:
        raise QueueError("bad_file", f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(_encoded(secrets.token_bytes(32)) + "\n")
    print(read_credentials(path).public_key)
    print(f"The seed is in {path}: keep it secret.", file=sys.stderr)
    return 0


def _encoded(seed: bytes) -> str:
    data = bytes([_SEED | _USER >> 5, (_USER & 31) << 3]) + seed
    # CRC-16/XMODEM, little-endian.
    checksum = binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data + checksum).decode().rstrip("=")
