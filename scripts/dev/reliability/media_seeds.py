"""Recordings of phones and browsers, and the messages of the child process that decodes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from app.audio.media import wire

_RATE = 16_000
_KINDS = (
    ("ipod", "aac", {}),
    ("mp4", "aac", {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}),
    ("mov", "pcm_s16le", {"movflags": "+faststart"}),
    ("ipod", "alac", {}),
    ("webm", "libopus", {}),
    ("matroska", "flac", {"live": "1"}),
    ("adts", "aac", {}),
    ("amr", "libopencore_amrnb", {}),
    ("asf", "wmav2", {}),
    ("avi", "libmp3lame", {}),
    ("mpegts", "ac3", {}),
    ("ogg", "flac", {}),
    ("caf", "adpcm_ima_qt", {}),
)
_RATES = {"libopus": 48_000, "libopencore_amrnb": 8_000, "ac3": 48_000}


def recordings() -> Iterator[bytes]:
    """Half a second of a tone in every container; nothing without PyAV."""
    try:
        import av
        from av.codec.codec import codecs_available
    except ImportError:
        return
    wave = (0.3 * np.sin(np.arange(_RATE // 2) / 10)).astype(np.float32)[None, :]
    for container, codec, options in _KINDS:
        if codec not in codecs_available:
            continue  # some builds cannot encode AMR
        file = os.memfd_create("seed")
        with av.open(f"/proc/self/fd/{file}", "w", format=container, options=options) as output:
            rate = _RATES.get(codec, _RATE)
            stream = output.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = 48_000 if codec != "libopencore_amrnb" else 12_200
            kinds = stream.codec_context.codec.audio_formats
            size = stream.codec_context.frame_size
            converter = av.AudioResampler(kinds[0].name, "mono", rate, size)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = _RATE, 0, Fraction(1, _RATE)
            for piece in (*converter.resample(frame), *converter.resample(None)):
                output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
        with open(file, "rb") as made:
            made.seek(0)
            yield made.read()


def messages() -> Iterator[bytes]:
    """Whole conversations of a child with the node."""
    opened = wire.opened(16_000, 2, 1.5)
    planes = wire.frame_head(0, 4, 4, 16_000, 2, "fltp", 32) + bytes(32)
    packed = wire.frame_head(4, 8, 4, 16_000, 2, "s16", 16) + bytes(range(16))
    other = wire.frame_head(wire.NO_TIME, 10, 4, 32_000, 1, "u8", 4) + b"abcd"
    yield opened + planes + wire.silence(100) + packed + other + wire.ended()
    yield opened + wire.silence(100) + packed
    for reason in ("codec", "track", "damaged"):
        yield wire.failed(reason, "xyz")
    yield opened + planes + wire.failed("damaged", "")
