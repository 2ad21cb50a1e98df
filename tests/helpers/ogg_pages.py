"""Pages of Ogg files, for tests that change them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator


def _table() -> list[int]:
    table = []
    for value in range(256):
        register = value << 24
        for _ in range(8):
            register = (register << 1) ^ (0x04C11DB7 if register & 1 << 31 else 0)
        table.append(register & 0xFFFFFFFF)
    return table


_TABLE = _table()


def pages(data: bytes) -> Iterator[bytearray]:
    """Yield the pages of a file."""
    position = 0
    while position < len(data):
        count = data[position + 26]
        size = 27 + count + sum(data[position + 27 : position + 27 + count])
        yield bytearray(data[position : position + size])
        position += size


def changed(data: bytes, change: Callable[[list[bytearray]], object]) -> bytes:
    """The file after `change` has altered its list of pages, with new checksums."""
    some = list(pages(data))
    change(some)
    return b"".join(_with_checksum(page) for page in some)


def without_end(data: bytes) -> bytes:
    """The file without the flag of its last page, as many recorders leave it."""

    def clear(some: list[bytearray]) -> None:
        some[-1][5] &= ~4

    return changed(data, clear)


def later(data: bytes, samples: int) -> bytes:
    """The file as if so many samples had been broadcast before its beginning."""

    def move(some: list[bytearray]) -> None:
        for page in some:
            (position,) = struct.unpack_from("<q", page, 6)
            if position > 0:
                struct.pack_into("<q", page, 6, position + samples)

    return changed(data, move)


def flac_in_ogg(flac: bytes, frames_in_page: int = 4) -> bytes:
    """A FLAC file in the pages of an Ogg (RFC 9639, section 10.1). All metadata but the first block
    is left out; frames are divided anywhere, which the pages may do."""
    assert flac[:4] == b"fLaC"
    position, is_last = 4, False
    stream_info = b""
    while not is_last:
        is_last = bool(flac[position] & 128)
        length = int.from_bytes(flac[position + 1 : position + 4], "big")
        if flac[position] & 127 == 0:
            stream_info = bytes([128]) + flac[position + 1 : position + 4 + length]
        position += 4 + length
    first = b"\x7fFLAC\1\0\0\0" + flac[:4] + stream_info
    found = [_page(first, 2, 0, 0)]
    step = 255 * 8 * frames_in_page
    rest = flac[position:]
    for number, at in enumerate(range(0, len(rest), step), 1):
        flags = 4 if at + step >= len(rest) else 0
        found.append(_page(rest[at : at + step], flags, number, number * 4096))
    return b"".join(found)


def _page(data: bytes, flags: int, number: int, position: int) -> bytes:
    lengths = bytes([255] * (len(data) // 255) + [len(data) % 255])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, 7, number, 0, len(lengths))
    return _with_checksum(bytearray(head + lengths + data))


def _with_checksum(page: bytearray) -> bytes:
    page[22:26] = bytes(4)
    register = 0
    for byte in page:
        register = (register << 8 & 0xFFFFFFFF) ^ _TABLE[register >> 24 ^ byte]
    page[22:26] = struct.pack("<I", register)
    return bytes(page)
