"""The codec of a file by its first bytes, where libsndfile may not support it.

Sources: RFC 7845 (Opus), RFC 9639 section 10.1 (FLAC in Ogg), the Speex manual, the Vorbis I
specification; Apple's Core Audio Format specification, "Audio Description Chunk"; RFC 2361 and
Microsoft's mmreg.h (WAV); Apple's "AIFF-C" draft; Sun's audio(4).
"""

from __future__ import annotations

import os
import struct

_HEAD_BYTES = 4096

_OGG = (
    (b"\x01vorbis", "Vorbis"),
    (b"OpusHead", "Opus"),
    (b"Speex   ", "Speex"),
    (b"\x7fFLAC", "FLAC"),
    (b"fLaC", "FLAC"),
    (b"\x80theora", "Theora"),
)

_CAF = {b"aac ": "AAC", b"aach": "HE-AAC", b"opus": "Opus", b"ilbc": "iLBC", b".mp3": "MP3"}


_WAV = {
    0x0022: "TrueSpeech",
    0x0042: "G.723.1",
    0x0045: "G.726",
    0x0050: "MPEG",
    0x0064: "G.726",
    0x0083: "G.729",
    0x0092: "AC-3",
    0x00FF: "AAC",
    0x0111: "G.723.1",
    0x0130: "ACELP.net",
    0x0160: "WMA",
    0x0161: "WMA",
    0x0162: "WMA Pro",
    0x0163: "WMA Lossless",
    0x1600: "AAC",
    0x1602: "AAC",
    0x1610: "HE-AAC",
    0x2000: "AC-3",
    0x674F: "Vorbis",
    0x704F: "Opus",
    0x7A21: "AMR",
    0x7A22: "AMR",
    0xA109: "Speex",
    0xA10B: "Speex",
    0xF1AC: "FLAC",
    0x0014: "G.723",
    0x0073: "Voxware",
    0x0200: "Creative ADPCM",
}
"""Codecs by the format tag of a WAV file."""

_EXTENSIBLE = 0xFFFE
"""The tag of a WAV whose codec is in the first two bytes of a longer identifier."""

_READ_IN_WAV = frozenset((0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0x38, 0x40, 0x55))
_READ_IN_AU = frozenset((*range(1, 8), *range(23, 28)))
_READ_IN_AIFF = frozenset(
    (b"NONE", b"sowt", b"twos", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"ulaw", b"ULAW")
) | frozenset((b"alaw", b"ALAW", b"GSM ", b"ima4", b"DWVW", b"in24", b"in32", b"42ni", b"23ni"))
"""Codecs that libsndfile reads."""


def codec_name(container: str, descriptor: int) -> str | None:
    """Return the name of the codec of an Ogg or CAF file, or of a WAV, AIFF or AU whose codec
    libsndfile does not read, or the letters or number by which the file names it; None for other
    files. Raises `OSError`."""
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if container == "WAV":
        return _of_wav(head)
    if container == "AIFF" and head[8:12] == b"AIFC":
        at = head.find(b"COMM")
        code = head[at + 26 : at + 30]
        return None if at < 0 or code in _READ_IN_AIFF else _letters(code)
    if container == "AU" and len(head) >= 16:
        encoding = int.from_bytes(head[12:16], "big")
        return None if encoding in _READ_IN_AU else f"encoding {encoding}"
    if container == "Ogg":
        return next((name for magic, name in _OGG if magic in head), None)
    if container == "CAF" and head[8:12] == b"desc":
        code = head[28:32]
        return _CAF.get(code, _letters(code))
    return None


def _of_wav(head: bytes) -> str | None:
    at = head.find(b"fmt ")
    if at < 0 or len(head) < at + 24:
        return None
    order = ">" if head[:4] == b"RIFX" else "<"
    (tag,) = struct.unpack_from(order + "H", head, at + 8)
    if tag == _EXTENSIBLE and len(head) >= at + 34:
        (tag,) = struct.unpack_from(order + "H", head, at + 32)
    return None if tag in _READ_IN_WAV else _WAV.get(tag, f"codec 0x{tag:04X}")


def _letters(code: bytes) -> str | None:
    return "".join(chr(byte) for byte in code if 32 < byte < 127) or None
