"""Recordings as phones and browsers make them, encoded with PyAV from samples.

A test that uses this module is skipped where PyAV is not installed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from app.audio.media.opener import MediaOpener
from app.audio.stream import AudioError, AudioStream
from app.storage.body import in_memory

av = pytest.importorskip("av", reason="PyAV is not installed here (requirements-media.txt)")
codecs_available = pytest.importorskip("av.codec.codec").codecs_available
Disposition = pytest.importorskip("av.stream").Disposition

JFK = Path(__file__).resolve().parents[1] / "audio" / "jfk.flac"
RATE = 16_000


def clip(seconds: float = 11.0) -> Any:
    """The beginning of the clip: float32, shape [n], 16 kHz."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    return soxr.resample(samples.mean(axis=1), rate, RATE)[: int(seconds * RATE)]


@dataclass(frozen=True)
class Kind:
    """A container and a codec by FFmpeg's names, with the rate that the codec needs."""

    container: str
    codec: str
    rate: int = RATE
    bits: int | None = None


KINDS = {
    "m4a AAC": Kind("ipod", "aac"),
    "m4a AAC 44.1 kHz": Kind("mp4", "aac", 44_100),
    "m4a ALAC": Kind("ipod", "alac"),
    "mov": Kind("mov", "aac"),
    "mov PCM": Kind("mov", "pcm_s16le"),
    "3gp AMR": Kind("3gp", "libopencore_amrnb", 8_000, 12_200),
    "mp4 Opus": Kind("mp4", "libopus", 48_000),
    "mp4 MP3": Kind("mp4", "libmp3lame"),
    "webm Opus": Kind("webm", "libopus", 48_000),
    "mkv AAC": Kind("matroska", "aac"),
    "mkv FLAC": Kind("matroska", "flac"),
    "CAF IMA4": Kind("caf", "adpcm_ima_qt"),
    "ADTS": Kind("adts", "aac"),
    "AMR": Kind("amr", "libopencore_amrnb", 8_000, 12_200),
    "WMA": Kind("asf", "wmav2", bits=48_000),
    "AVI MP3": Kind("avi", "libmp3lame"),
    "AVI PCM": Kind("avi", "pcm_s16le"),
    "MPEG-TS AAC": Kind("mpegts", "aac"),
    "MPEG-TS AC-3": Kind("mpegts", "ac3", 48_000),
    "Ogg FLAC": Kind("ogg", "flac"),
}


_made: dict[Any, bytes] = {}
"""The recordings of the clip that were made before."""


def recorded(
    kind: Kind | str,
    samples: Any = None,
    *,
    pictures: bool = False,
    tracks: int = 1,
    tags: dict[str, str] | None = None,
    default: int = 0,
    gap: tuple[float, float] | None = None,
    **options: str,
) -> bytes:
    """A recording of `samples` (16 kHz, shape [n] or [n, channels]; the clip by default).

    With `pictures` a video is its first track. Of several `tracks` only the number `default` has
    the samples; the others are silent. `gap` moves the timestamps from a second on by seconds.
    """
    kind = KINDS[kind] if isinstance(kind, str) else kind
    if kind.codec not in codecs_available:
        pytest.skip(f"this PyAV cannot encode {kind.codec}")
    key = None
    if samples is None and not (pictures or tags or default or gap) and tracks == 1:
        key = (kind, *sorted(options.items()))
        if key in _made:
            return _made[key]
    samples = clip() if samples is None else samples
    planes = samples[None, :] if samples.ndim == 1 else np.ascontiguousarray(samples.T)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(planes)]
    file = os.memfd_create("made")
    # By a path, because some muxers open their file again.
    container = av.open(f"/proc/self/fd/{file}", "w", format=kind.container, options=options)
    container.metadata.update(tags or {})
    video = None
    if pictures:
        video = container.add_stream("mpeg4", rate=1)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
    streams = [
        container.add_stream(kind.codec, rate=kind.rate, layout=layout) for _ in range(tracks)
    ]
    for number, stream in enumerate(streams):
        if kind.bits is not None:
            stream.bit_rate = kind.bits
        stream.disposition = Disposition.default if number == default else Disposition(0)
    if video is not None:
        for number in range(1 + planes.shape[1] // RATE):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 1)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    for number, stream in enumerate(streams):
        # Formats and rates that the codec lacks are converted.
        formats = [one.name for one in stream.codec_context.codec.audio_formats]
        converter = av.AudioResampler(
            formats[0], layout, kind.rate, stream.codec_context.frame_size
        )
        sound = planes if number == default else np.zeros_like(planes)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound), format="fltp", layout=layout
        )
        frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        packets = []
        for piece in (*converter.resample(frame), *converter.resample(None)):
            packets += stream.encode(piece)
        for packet in (*packets, *stream.encode(None)):
            if gap is not None and packet.pts * packet.time_base >= gap[0]:
                shift = round(gap[1] / packet.time_base)
                packet.pts += shift
                packet.dts += shift
            container.mux(packet)
    container.close()
    with open(file, "rb") as made:
        made.seek(0)
        data = made.read()
    if key is not None:
        _made[key] = data
    return data


class Decoded:
    """What the node hears of a body: samples, or the code and message of the failure."""

    def __init__(
        self,
        data: bytes,
        seconds: float = 3600.0,
        opener: MediaOpener | None = None,
        before_read: Callable[[AudioStream], None] = lambda stream: None,
    ) -> None:
        body = in_memory(data)
        self.blocks: list[Any] = []
        self.code = self.message = ""
        self.truncated = False
        try:
            stream = AudioStream(
                body.fileno(), body.size, None, seconds, media=(opener or MediaOpener()).open
            )
            self.declared, self.channels = stream.declared_seconds, stream.channels
            try:
                before_read(stream)
                while (block := stream.read()) is not None:
                    self.blocks.append(block)
                    before_read(stream)
                self.truncated = stream.truncated
            finally:
                stream.close()
        except AudioError as error:
            self.code, self.message = error.failure.code, error.failure.message
        finally:
            body.close()

    @property
    def samples(self) -> Any:
        assert not self.code, self.message
        return np.concatenate(self.blocks)


def likeness(heard: Any, original: Any) -> float:
    """The correlation of two recordings at their best shift of at most 0.2 s, 0 to 1."""
    size = 1 << (len(heard) + len(original)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(original, size)))
    most = RATE // 5
    best = max(product[:most].max(), product[-most:].max())
    return float(best / (np.linalg.norm(heard) * np.linalg.norm(original)))


def box(name: bytes, *parts: bytes) -> bytes:
    """A box of mp4."""
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), name) + data
