"""Sizes of raw samples: the smallest unit of bytes that can be decoded, and bytes a second.

Pure; any thread. Sources: ITU-T G.711 (mu-law, A-law) and G.722 (64 kbit/s), ETSI GSM 06.10 (full
rate) in the frames of RFC 3551, section 4.5.8, which Asterisk's files have, too.
"""

from __future__ import annotations

from app.messages import SAMPLE_BYTES, RawFormat

G722_RATE = 16_000
"""Hz. RTP states 8000 by a historical error (RFC 3551, section 4.5.2)."""

_UNITS = {"gsm": (33, 160), "g722": (1, 2)}
"""Bytes of a unit and the samples of one channel in it."""

ONE_CHANNEL = frozenset(_UNITS)
"""Encodings that have one channel only."""


def unit(raw: RawFormat) -> tuple[int, int]:
    """Return the bytes of the smallest unit that can be decoded, and the frames in it."""
    if raw.encoding in _UNITS:
        return _UNITS[raw.encoding]
    return SAMPLE_BYTES[raw.encoding] * raw.channels, 1


def bytes_per_second(raw: RawFormat) -> float:
    """Return the bytes of a second of audio."""
    size, frames = unit(raw)
    return size * raw.sample_rate / frames
