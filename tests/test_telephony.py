"""Encodings of telephony: raw G.711, GSM and G.722, and the WAV and AU files that hold them."""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes import body_of, encoded, tone
from G722 import G722
from node import JFK, Node, stopped_cleanly

from app.audio.g711 import TABLES
from app.audio.raw_format import bytes_per_second, unit
from app.audio.raw_samples import RawSamples
from app.audio.stream import AudioError, AudioStream, Samples
from app.messages import RawFormat, SampleEncoding


def raw_format(encoding: SampleEncoding, rate: int = 8000, channels: int = 1) -> RawFormat:
    return RawFormat(encoding, rate, channels, "little")


def raw_file(subtype: str, samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="RAW", subtype=subtype)
    return file.getvalue()


def g722(samples: Samples) -> bytes:
    """Samples at 16 kHz as G.722."""
    data: bytes = G722(16_000, 64_000).encode((samples.reshape(-1) * 32_767).astype("<i2"))
    return data


def decoded(data: bytes, raw: RawFormat | None = None) -> tuple[Samples, AudioStream]:
    body = body_of(data)
    try:
        stream = AudioStream(body.fileno(), body.size, raw, 3600.0)
        blocks = []
        while (block := stream.read()) is not None:
            blocks.append(block)
        stream.close()
        return np.concatenate(blocks), stream
    finally:
        body.close()


def assert_tone(samples: Samples, seconds: float) -> None:
    """It must be the tone of 440 Hz at half of full scale, and nearly nothing else."""
    assert len(samples) / 16_000 == pytest.approx(seconds, abs=0.03)
    steady = samples[2000:-2000]
    spectrum = np.abs(np.fft.rfft(steady * np.hanning(len(steady)))) ** 2
    at = int(spectrum.argmax())
    assert at * 16_000 / len(steady) == pytest.approx(440, abs=3)
    assert spectrum[at - 4 : at + 5].sum() > 0.98 * spectrum.sum()
    assert np.abs(steady).max() == pytest.approx(0.5, abs=0.08)


# Raw samples.


@pytest.mark.parametrize(
    ("encoding", "subtype"), [("ulaw", "ULAW"), ("alaw", "ALAW"), ("gsm", "GSM610")]
)
def test_raw_telephony_is_read(encoding: SampleEncoding, subtype: str) -> None:
    data = raw_file(subtype, tone(24_000, 8000))
    raw = raw_format(encoding)
    samples, stream = decoded(data, raw)
    assert_tone(samples, 3.0)
    assert not stream.truncated
    assert len(data) / bytes_per_second(raw) == pytest.approx(3.0, abs=0.01)


def test_raw_g722_is_read() -> None:
    data = g722(tone(48_000))
    samples, stream = decoded(data, raw_format("g722", 16_000))
    assert_tone(samples, 3.0)
    assert not stream.truncated
    assert stream.declared_seconds == 3.0


def test_raw_gsm_that_ends_within_a_frame_is_truncated() -> None:
    data = raw_file("GSM610", tone(24_000, 8000))
    samples, stream = decoded(data[:-10], raw_format("gsm"))
    assert stream.truncated
    assert len(samples) > 2.9 * 16_000


def test_two_channels_of_ulaw_are_interleaved() -> None:
    data = np.frombuffer(raw_file("ULAW", tone(8000, 8000)), np.uint8)
    both = np.stack([data, np.full_like(data, 0xFF)], axis=1).tobytes()
    assert_tone(decoded(data.tobytes(), raw_format("ulaw"))[0], 1.0)
    samples, stream = decoded(both, raw_format("ulaw", channels=2))
    assert stream.channels == 2
    assert len(samples) == 16_000


@pytest.mark.parametrize(("encoding", "subtype"), [("ulaw", "ULAW"), ("alaw", "ALAW")])
def test_table_of_g711_has_the_samples_of_libsndfile(encoding: str, subtype: str) -> None:
    codes = bytes(range(256))
    file, _ = soundfile.read(
        io.BytesIO(codes),
        dtype="float32",
        format="RAW",
        subtype=subtype,
        samplerate=8000,
        channels=1,
    )
    assert np.array_equal(TABLES[encoding], file)


def test_live_g711_has_the_samples_of_a_file() -> None:
    data = raw_file("ULAW", tone(1000, 8000))
    live = RawSamples(raw_format("ulaw", channels=2))
    pieces = [live.read(data[at : at + 7]) for at in range(0, len(data), 7)]
    together = np.concatenate(pieces)
    assert together.shape == (500, 2)
    assert np.array_equal(together.reshape(-1), TABLES["ulaw"][np.frombuffer(data, np.uint8)])


@pytest.mark.parametrize(
    ("raw", "smallest"),
    [
        (raw_format("ulaw", channels=2), (2, 1)),
        (raw_format("gsm"), (33, 160)),
        (raw_format("g722", 16_000), (1, 2)),
        (raw_format("s24", 48_000, 3), (9, 1)),
    ],
)
def test_unit_is_the_smallest_that_can_be_decoded(
    raw: RawFormat, smallest: tuple[int, int]
) -> None:
    assert unit(raw) == smallest


# Files.


def wav(tag: int, data: bytes, rate: int = 16_000, length: int | None = None) -> bytes:
    form = struct.pack("<HHIIHHH", tag, 1, rate, 8000, 1, 4, 0)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data) if length is None else length) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


@pytest.mark.parametrize("tag", [0x028F, 0x0065])
def test_g722_in_a_wav_is_read(tag: int) -> None:
    data = g722(tone(48_000))
    samples, stream = decoded(wav(tag, data))
    assert_tone(samples, 3.0)
    assert not stream.truncated
    assert_tone(decoded(wav(tag, data, length=0))[0], 3.0)
    assert_tone(decoded(wav(tag, data, length=len(data) // 2))[0], 3.0)
    samples, stream = decoded(wav(tag, data)[: len(data) // 2])
    assert stream.truncated
    assert 1.4 < len(samples) / 16_000 < 1.6


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "ULAW"),
        ("WAV", "ALAW"),
        ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "G721_32"),
        ("AU", "ULAW"),
        ("AU", "ALAW"),
        ("AU", "G721_32"),
        ("AIFF", "ULAW"),
        ("CAF", "ALAW"),
        ("W64", "GSM610"),
    ],
)
def test_telephony_in_a_file_is_read(form: str, subtype: str) -> None:
    data = encoded(tone(24_000, 8000), 8000, format=form, subtype=subtype)
    samples, stream = decoded(data)
    assert_tone(samples[: 3 * 16_000], 3.0)
    assert not stream.truncated


# Independent decoder.


def test_g722_equals_that_of_ffmpeg() -> None:
    """Also for bytes that no encoder makes."""
    pytest.importorskip("av", reason="needs PyAV (requirements-media.txt)")
    # Imported by name, because it is optional and has no types.
    av: Any = importlib.import_module("av")
    random = np.random.default_rng(1).integers(0, 256, 8000, dtype=np.uint8).tobytes()
    for data in (g722(tone(32_000)), random):
        context = av.CodecContext.create("g722", "r")
        frames = [frame.to_ndarray().ravel() for frame in context.decode(av.Packet(data))]
        frames += [frame.to_ndarray().ravel() for frame in context.decode(None)]
        samples, _ = decoded(data, raw_format("g722", 16_000))
        theirs = np.concatenate(frames)[: 2 * len(data)]
        assert np.array_equal(np.round(samples * 32_768), theirs)


# The real node.


@pytest.mark.slow
def test_node_reads_telephony() -> None:
    samples, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    narrow, wide = (
        np.asarray(soxr.resample(samples.mean(axis=1), rate, hertz), np.float32)
        for hertz in (8000, 16_000)
    )
    with stopped_cleanly(Node()) as node:
        for encoding, body in (
            ("ulaw", raw_file("ULAW", narrow)),
            ("gsm", raw_file("GSM610", narrow)),
            ("g722", g722(wide)),
        ):
            reply = node.ask(
                body,
                content_type="audio/pcm",
                content_encoding=encoding,
                sample_rate=16_000 if encoding == "g722" else 8000,
                channels=1,
            )
            assert reply["status"] == "ok", reply
            assert "your country" in reply["text"]
            assert reply["audio_seconds"] == pytest.approx(11.0, abs=0.05)


# Codecs that are not read.


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (wav(0x0083, bytes(3000)), "G.729 in WAV"),
        (wav(0x00FF, bytes(3000)), "AAC in WAV"),
        (wav(0x1234, bytes(3000)), "codec 0x1234 in WAV"),
        (b".snd" + struct.pack(">IIIII", 24, 3000, 99, 8000, 1) + bytes(3000), "encoding 99 in AU"),
    ],
)
def test_codec_that_is_not_read_is_named(data: bytes, named: str) -> None:
    with pytest.raises(AudioError) as caught:
        decoded(data)
    assert caught.value.failure.code == "unsupported_media_type"
    assert named in caught.value.failure.message


def test_damaged_file_of_a_codec_that_is_read_is_bad_audio() -> None:
    data = encoded(tone(1000), format="WAV")
    with pytest.raises(AudioError) as caught:
        decoded(data[:30])
    assert caught.value.failure.code == "bad_audio"


def test_file_without_a_header_is_told_to_need_its_encoding() -> None:
    with pytest.raises(AudioError) as caught:
        decoded(raw_file("GSM610", tone(8000, 8000)))
    assert caught.value.failure.code == "unsupported_media_type"
    assert "encoding" in caught.value.failure.message
