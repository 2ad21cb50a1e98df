"""The codec of an Ogg or CAF file by its first bytes, where libsndfile may not support it.

Sources: RFC 7845 (Opus), RFC 9639 section 10.1 (FLAC in Ogg), the Speex manual, the Vorbis I
specification; Apple's Core Audio Format specification, "Audio Description Chunk".
"""

from __future__ import annotations

import os

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


def codec_name(container: str, descriptor: int) -> str | None:
    """Return the name of the codec of an Ogg or CAF file, or the four letters by which a CAF file
    names it; None for other containers and unknown codecs. Raises `OSError`."""
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if container == "Ogg":
        return next((name for magic, name in _OGG if magic in head), None)
    if container == "CAF" and head[8:12] == b"desc":
        code = head[28:32]
        letters = "".join(chr(byte) for byte in code if 32 < byte < 127)
        return _CAF.get(code, letters or None)
    return None
