"""G.711 to 16-bit samples (ITU-T G.711, tables 1a/G.711 to 2b/G.711). Pure."""

from __future__ import annotations

from collections.abc import Callable


def _ulaw(byte: int) -> int:
    inverted = ~byte & 0xFF
    magnitude = ((((inverted & 0x0F) << 3) + 0x84) << ((inverted & 0x70) >> 4)) - 0x84
    return -magnitude if inverted & 0x80 else magnitude


def _alaw(byte: int) -> int:
    # Every second bit is inverted on the line.
    toggled = byte ^ 0x55
    step, chord = (toggled & 0x0F) << 4, (toggled & 0x70) >> 4
    magnitude = step + 8 if chord == 0 else (step + 0x108) << (chord - 1)
    return magnitude if toggled & 0x80 else -magnitude


def _tables(sample: Callable[[int], int]) -> tuple[bytes, bytes]:
    """Return the low and the high byte of each code's sample, for `bytes.translate`."""
    pairs = [sample(byte).to_bytes(2, "little", signed=True) for byte in range(256)]
    return bytes(pair[0] for pair in pairs), bytes(pair[1] for pair in pairs)


ULAW = _tables(_ulaw)
ALAW = _tables(_alaw)


def expanded(data: bytes, table: tuple[bytes, bytes]) -> bytes:
    """Return one 16-bit little-endian sample for each byte of `data`."""
    samples = bytearray(2 * len(data))
    samples[::2] = data.translate(table[0])
    samples[1::2] = data.translate(table[1])
    return bytes(samples)
