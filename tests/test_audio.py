"""The decoder from bytes to mono float32 at 16 kHz: every format complete, truncated, with a wrong
header or damaged; and only `AudioError` for unusable input."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, Samples, body_of, encoded, tone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audio.stream import AudioError, AudioStream
from app.messages import RawFormat

JFK = Path(__file__).resolve().parent / "audio" / "jfk.flac"

FORMATS: dict[str, dict[str, Any]] = {
    "WAV": {"format": "WAV"},
    "WAV float": {"format": "WAV", "subtype": "FLOAT"},
    "WAV 24": {"format": "WAV", "subtype": "PCM_24"},
    "WAV u8": {"format": "WAV", "subtype": "PCM_U8"},
    "WAV mu-law": {"format": "WAV", "subtype": "ULAW"},
    "WAV ADPCM": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "RIFX": {"format": "WAV", "endian": "BIG"},
    "WAVEX": {"format": "WAVEX"},
    "RF64": {"format": "RF64"},
    "FLAC": {"format": "FLAC"},
    "Vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "Opus": {"format": "OGG", "subtype": "OPUS"},
    "MP3": {"format": "MP3"},
    "AIFF": {"format": "AIFF"},
    "AU": {"format": "AU"},
    "CAF": {"format": "CAF"},
    "W64": {"format": "W64"},
}


class Decoded:
    """The result of decoding a body: the samples, or the code of the failure."""

    def __init__(self, data: bytes, raw: RawFormat | None = None, seconds: float = 3600.0) -> None:
        body = body_of(data)
        self.blocks: list[Samples] = []
        self.code = self.message = ""
        try:
            stream = AudioStream(body.fileno(), body.size, raw, seconds)
            try:
                while (block := stream.read()) is not None:
                    assert block.dtype == np.float32
                    assert block.ndim == 1
                    assert np.isfinite(block).all()
                    self.blocks.append(block)
                assert stream.read() is None
                self.seconds = stream.seconds
                self.truncated = stream.truncated
            finally:
                stream.close()
        except AudioError as error:
            self.code, self.message = error.failure.code, error.failure.message
        finally:
            # The stream only borrows the descriptor, so the test must still be able to close it.
            os.fstat(body.fileno())
            body.close()

    @property
    def samples(self) -> Samples:
        assert not self.code, self.message
        return np.concatenate(self.blocks)


def far(one: Samples, other: Samples) -> float:
    """The greatest difference between two arrays of equal length."""
    return float(np.abs(one - other).max())


def strength(samples: Samples, hertz: float = 440.0) -> float:
    """The amplitude of `hertz` in the middle of 16 kHz samples."""
    middle = samples[len(samples) // 4 : len(samples) * 3 // 4]
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / RATE)
    return float(2 * abs(np.mean(middle * wave)))


# Raw samples.


def pack(samples: Samples, encoding: str, byteorder: str) -> bytes:
    order = "<" if byteorder == "little" else ">"
    flat = samples.ravel()
    if encoding == "f32":
        return bytes(flat.astype(order + "f4").tobytes())
    if encoding == "u8":
        return bytes((flat * 127 + 128).round().astype("u1").tobytes())
    bits = int(encoding[1:])
    whole = (flat.astype(np.float64) * (2 ** (bits - 1) - 1)).round().astype(order + "i4")
    if encoding != "s24":
        return bytes(whole.astype(f"{order}i{bits // 8}").tobytes())
    quads = np.frombuffer(whole.tobytes(), "u1").reshape(-1, 4)
    return bytes((quads[:, :3] if order == "<" else quads[:, 1:]).tobytes())


@pytest.mark.parametrize("encoding", ["s16", "s24", "s32", "f32", "u8"])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_raw_samples_of_every_encoding_are_decoded(encoding: Any, byteorder: Any) -> None:
    wave = tone(RATE)
    decoded = Decoded(pack(wave, encoding, byteorder), RawFormat(encoding, RATE, 1, byteorder))
    assert far(decoded.samples, wave) < (0.01 if encoding == "u8" else 1e-4)
    assert decoded.seconds == 1.0
    assert not decoded.truncated


@pytest.mark.parametrize("rate", [1_000, 8_000, 16_000, 44_100, 96_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_raw_samples_of_every_rate_and_channel_count_are_decoded(rate: int, channels: int) -> None:
    wave = tone(rate * 2, rate, channels, hertz=300)
    decoded = Decoded(pack(wave, "s16", "little"), RawFormat("s16", rate, channels, "little"))
    assert decoded.seconds == 2.0
    assert len(decoded.samples) == pytest.approx(2 * RATE, abs=2)
    assert strength(decoded.samples, 300) == pytest.approx(0.5, abs=0.01)


def test_channels_are_mixed_evenly() -> None:
    both = np.stack([tone(RATE, hertz=500), tone(RATE, hertz=1500)], axis=1)
    decoded = Decoded(pack(both, "f32", "little"), RawFormat("f32", RATE, 2, "little"))
    assert strength(decoded.samples, 500) == pytest.approx(0.25, abs=0.01)
    assert strength(decoded.samples, 1500) == pytest.approx(0.25, abs=0.01)


def test_sixty_four_channels_are_decoded() -> None:
    wave = tone(RATE, channels=64)
    decoded = Decoded(pack(wave, "s16", "little"), RawFormat("s16", RATE, 64, "little"))
    assert far(decoded.samples, wave[:, 0]) < 1e-3


def test_resampling_removes_frequencies_above_the_limit() -> None:
    wave = tone(96_000, 96_000, hertz=20_000)
    decoded = Decoded(pack(wave, "f32", "little"), RawFormat("f32", 96_000, 1, "little"))
    # The abrupt begin and end of the tone itself have all frequencies.
    assert np.abs(decoded.samples[100:-100]).max() < 0.01


@pytest.mark.parametrize("extra", [1, 3])
def test_incomplete_last_sample_is_dropped_and_reported(extra: int) -> None:
    data = pack(tone(1000, channels=2), "s16", "little") + b"\1\2\3\4"[:extra]
    decoded = Decoded(data, RawFormat("s16", RATE, 2, "little"))
    assert len(decoded.samples) == 1000
    assert decoded.truncated


def test_less_than_one_sample_is_bad_audio() -> None:
    assert Decoded(b"\1", RawFormat("s16", RATE, 1, "little")).code == "bad_audio"
    assert Decoded(b"\1\2\3", RawFormat("s16", RATE, 2, "little")).code == "bad_audio"


def test_single_sample_is_decoded() -> None:
    # A single sample consists only of its offset, which is removed.
    decoded = Decoded(b"\0\x40", RawFormat("s16", RATE, 1, "little"))
    assert decoded.samples.tolist() == [0.0]
    assert Decoded(b"\0\x40", RawFormat("s16", 8000, 1, "little")).seconds == 1 / 8000


def test_raw_samples_stay_raw_even_if_they_resemble_a_file() -> None:
    looks_like_flac = JFK.read_bytes()[:20_000]
    decoded = Decoded(looks_like_flac, RawFormat("s16", RATE, 1, "little"))
    assert len(decoded.samples) == 10_000


# Odd values.


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_nan_and_infinities_become_silence(rate: int) -> None:
    wave = tone(rate, rate)
    wave[1000:1100] = np.nan
    wave[2000] = np.inf
    wave[3000] = -np.inf
    decoded = Decoded(pack(wave, "f32", "little"), RawFormat("f32", rate, 1, "little"))
    assert strength(decoded.samples) == pytest.approx(0.5, abs=0.01)
    if rate == RATE:
        assert not decoded.samples[1000:1100].any()
        assert decoded.samples[2000] == decoded.samples[3000] == 0


def test_samples_that_are_all_nan_become_silence() -> None:
    data = pack(np.full(RATE, np.nan, dtype=np.float32), "f32", "little")
    decoded = Decoded(data, RawFormat("f32", RATE, 1, "little"))
    assert len(decoded.samples) == RATE
    assert not decoded.samples.any()


def test_channel_of_nan_does_not_affect_the_others() -> None:
    both = np.stack([tone(RATE), np.full(RATE, np.nan, dtype=np.float32)], axis=1)
    decoded = Decoded(pack(both, "f32", "little"), RawFormat("f32", RATE, 2, "little"))
    assert strength(decoded.samples) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_largest_floats_stay_in_range(channels: int) -> None:
    huge = np.full((RATE, channels), np.finfo(np.float32).max, dtype=np.float32)
    huge[::2] *= -1
    huge[5::7] = np.inf
    huge[6::7] = -np.inf
    decoded = Decoded(pack(huge, "f32", "little"), RawFormat("f32", RATE, channels, "little"))
    assert len(decoded.samples) == RATE
    assert np.abs(decoded.samples).max() <= 1.0


def test_samples_beyond_full_scale_are_scaled_instead_of_clipped() -> None:
    decoded = Decoded(encoded(tone(RATE) * 8, subtype="FLOAT"))
    assert far(decoded.samples, tone(RATE) * 2) < 1e-4


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8"])
def test_dc_offset_is_removed(subtype: str) -> None:
    decoded = Decoded(encoded(tone(44_100, 44_100) * 0.5 + 0.5, 44_100, subtype=subtype))
    assert abs(float(decoded.samples[1000:-1000].mean())) < 1e-3
    assert strength(decoded.samples) == pytest.approx(0.25, abs=0.01)
    assert np.abs(decoded.samples).max() < 0.3, "a step at the beginning"


# Files.


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_file_of_every_format_is_decoded(kind: str, channels: int) -> None:
    rate = 48_000 if kind == "Opus" else 44_100
    decoded = Decoded(encoded(tone(2 * rate, rate, channels), rate, **FORMATS[kind]))
    # MP3 adds padding before and after.
    assert decoded.seconds == pytest.approx(2.0, abs=0.12)
    assert len(decoded.samples) == pytest.approx(decoded.seconds * RATE, abs=2)
    assert strength(decoded.samples) == pytest.approx(0.5, abs=0.06)
    assert not decoded.truncated


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_file_is_decoded_up_to_its_end(kind: str) -> None:
    rate = 48_000 if kind == "Opus" else 16_000
    noise = np.random.default_rng(1).normal(0, 0.1, 3 * rate).astype(np.float32)
    data = encoded(noise, rate, **FORMATS[kind])
    whole = Decoded(data)
    heard = []
    # The first pages of an Ogg file hold no samples.
    for part in (0.5, 0.9) if kind in ("Vorbis", "Opus") else (0.1, 0.5, 0.9):
        decoded = Decoded(data[: int(len(data) * part)])
        assert decoded.code == "", f"{part}: {decoded.message}"
        heard.append(decoded.seconds)
        # libsndfile writes one second of Ogg per page, and half a page is not decoded.
        assert decoded.seconds == pytest.approx(part * 3, abs=1.2)
        assert decoded.truncated or kind == "MP3", part
        if kind not in ("Vorbis", "Opus", "MP3"):
            # Only the last block of ADPCM may differ.
            common = len(decoded.samples) - 2048
            assert np.array_equal(decoded.samples[:common], whole.samples[:common])
    assert heard == sorted(heard)
    for end in (*range(0, 130, 3), len(data) - 1):
        short = Decoded(data[:end])
        assert short.code in ("", "bad_audio", "unsupported_media_type")


@pytest.mark.parametrize("kind", FORMATS)
def test_file_without_samples_gives_silence_or_an_error(kind: str) -> None:
    decoded = Decoded(encoded(np.empty(0, dtype=np.float32), **FORMATS[kind]))
    # A lossy format may give anything from no samples to a frame of padding.
    if not decoded.code:
        assert decoded.seconds < 0.2
        assert np.abs(decoded.samples).max(initial=0.0) < 1e-3
    else:
        assert decoded.code in ("bad_audio", "unsupported_media_type")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "AU", "CAF", "W64"])
def test_header_without_samples_is_bad_audio(kind: str) -> None:
    assert Decoded(encoded(np.empty(0, dtype=np.float32), format=kind)).code == "bad_audio"


def test_empty_body_is_bad_audio() -> None:
    assert Decoded(b"").code == "bad_audio"
    assert Decoded(b"", RawFormat("s16", RATE, 1, "little")).code == "bad_audio"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x1aE\xdf\xa3" + b"webm" * 100, "webm"),
        (b"\0\0\0\x20ftypM4A " + bytes(100), "mp4"),
        ((b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)) * 9, "AAC"),
        (b"<!DOCTYPE html>", "not recognised"),
        (bytes(1000), "not recognised"),
    ],
)
def test_unsupported_format_is_named_with_the_supported_ones(data: bytes, name: str) -> None:
    decoded = Decoded(data)
    assert decoded.code == "unsupported_media_type"
    assert name in decoded.message
    assert "FLAC" in decoded.message


def test_clip_is_decoded_like_by_soundfile_and_soxr() -> None:
    decoded = Decoded(JFK.read_bytes())
    reference, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    assert decoded.seconds == pytest.approx(len(reference) / rate)
    assert decoded.seconds == pytest.approx(11.0, abs=0.1)
    whole = soxr.resample(reference.mean(axis=1), rate, RATE)
    assert len(decoded.samples) == pytest.approx(len(whole), abs=2)
    common = min(len(whole), len(decoded.samples))
    assert far(decoded.samples[:common], whole[:common]) < 1e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_blocks_join_to_the_whole_resampled_audio(rate: int) -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, (int(5.3 * rate), 2)).astype(np.float32)
    decoded = Decoded(encoded(noise, rate, subtype="FLOAT"))
    assert len(decoded.blocks) >= 5
    assert max(len(block) for block in decoded.blocks) <= 3 * RATE
    whole = soxr.resample(noise.mean(axis=1), rate, RATE)
    assert len(decoded.samples) == pytest.approx(len(whole), abs=2)
    common = min(len(whole), len(decoded.samples))
    assert far(decoded.samples[:common], whole[:common]) < 1e-3


# Wrong lengths.


def wav(length: int, samples: bytes, before: bytes = b"", riff: int = 0) -> bytes:
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + head
        + before
        + b"data"
        + struct.pack("<I", length)
        + samples
    )


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
@pytest.mark.parametrize("before", [b"", b"LIST\5\0\0\0INFO\0\0"], ids=["plain", "odd chunk"])
def test_streamed_wav_is_not_read_as_silence(length: int, riff: int, before: bytes) -> None:
    decoded = Decoded(wav(length, pack(tone(RATE), "s16", "little"), before, riff))
    assert decoded.seconds == 1.0
    assert strength(decoded.samples) == pytest.approx(0.5, abs=0.01)
    assert not decoded.truncated


@pytest.mark.parametrize(
    ("kind", "chunk", "further", "code", "length"),
    [
        ("AIFF", b"SSND", 4, ">I", 8),
        ("AIFF", b"SSND", 4, ">I", 0xFFFFFFFF),
        ("AU", b".snd", 8, ">I", 0),
        ("AU", b".snd", 8, ">I", 0x7FFFFFFF),
        ("W64", b"data\xf3", 16, "<Q", 0),
        ("W64", b"data\xf3", 16, "<Q", (1 << 64) - 1),
        ("CAF", b"data", 4, ">q", 0),
        ("CAF", b"data", 4, ">q", -1),
    ],
)
def test_streamed_file_of_another_format_is_read_to_its_end(
    kind: str, chunk: bytes, further: int, code: str, length: int
) -> None:
    data = bytearray(encoded(tone(RATE), format=kind))
    struct.pack_into(code, data, data.index(chunk) + further, length)
    decoded = Decoded(bytes(data))
    assert decoded.seconds == 1.0
    assert strength(decoded.samples) == pytest.approx(0.5, abs=0.01)
    assert not decoded.truncated


@pytest.mark.parametrize("length", [32_001, 64_000, 0x7FFE0000])
def test_wav_that_states_too_much_is_truncated(length: int) -> None:
    decoded = Decoded(
        wav(length, pack(tone(RATE), "s16", "little"), riff=36 + min(length, 1 << 31))
    )
    assert decoded.seconds == 1.0
    assert strength(decoded.samples) == pytest.approx(0.5, abs=0.01)
    assert decoded.truncated


def test_damaged_flac_keeps_the_audio_before_the_damage() -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 20 * RATE).astype(np.float32)
    data = encoded(noise, format="FLAC")
    broken = bytearray(data)
    # Random bytes in the middle of a frame; the frames after it cannot be trusted.
    middle = len(data) // 2
    broken[middle : middle + 400] = bytes(400)
    decoded = Decoded(bytes(broken[: middle + 400]))
    assert decoded.seconds == pytest.approx(10, abs=0.5)
    assert decoded.truncated
    there = slice(0, 9 * RATE)
    assert far(decoded.samples[there], noise[there]) < 1e-3


def streamed_flac(data: bytes) -> bytes:
    """A FLAC by an encoder that could not seek back and write the length."""
    flac = bytearray(data)
    # STREAMINFO's 36-bit count of samples, 0 for unknown: RFC 9639, section 8.2.
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    return bytes(flac)


@pytest.mark.parametrize("count", [2 * RATE, 2 * RATE + 333])
def test_flac_of_unknown_length_is_complete_with_its_last_frame(count: int) -> None:
    samples = np.random.default_rng(4).normal(0, 0.1, count).astype(np.float32)
    data = streamed_flac(encoded(samples, format="FLAC"))
    decoded = Decoded(data)
    assert len(decoded.samples) == count
    assert not decoded.truncated
    assert Decoded(data[:-5]).truncated


# The maximum length.


@pytest.fixture(scope="module")
def hours_of_silence() -> bytes:
    # At 1 kHz the test makes 18 million samples instead of 288 million.
    return encoded(np.zeros(5 * 3600 * 1000, dtype=np.int16), 1000, format="FLAC")


def test_too_long_file_is_rejected_by_its_header(hours_of_silence: bytes) -> None:
    assert len(hours_of_silence) < 500_000
    decoded = Decoded(hours_of_silence, seconds=4 * 3600.0)
    assert decoded.code == "audio_too_long"
    assert "14400 s" in decoded.message
    assert decoded.blocks == []


def test_too_long_file_of_unknown_length_is_stopped_at_the_limit(
    hours_of_silence: bytes,
) -> None:
    decoded = Decoded(streamed_flac(hours_of_silence), seconds=100.0)
    assert decoded.code == "audio_too_long"
    assert 100 <= sum(len(block) for block in decoded.blocks) / RATE + 1 <= 102


@pytest.mark.parametrize("raw", [None, RawFormat("s16", RATE, 1, "little")])
def test_file_of_exactly_the_limit_is_accepted(raw: RawFormat | None) -> None:
    for count, code in ((2 * RATE, ""), (2 * RATE + 1, "audio_too_long")):
        data = encoded(tone(count)) if raw is None else pack(tone(count), "s16", "little")
        assert Decoded(data, raw, seconds=2.0).code == code


@pytest.mark.parametrize(("rate", "channels"), [(999, 1), (500_000, 1), (16_000, 65)])
def test_unsupported_rate_or_channel_count_is_bad_audio(rate: int, channels: int) -> None:
    silence = np.zeros((2000, channels), dtype=np.float32)
    decoded = Decoded(encoded(silence, rate))
    assert decoded.code == "bad_audio"
    assert f"{rate} Hz with {channels} channels" in decoded.message


def test_unknown_codec_in_a_known_container_is_reported() -> None:
    data = encoded(tone(2000), format="CAF").replace(b"lpcm", b"aac ", 1)
    decoded = Decoded(data)
    assert decoded.code == "unsupported_media_type"
    assert "CAF" in decoded.message


# Random input.

ALLOWED = {"", "bad_audio", "unsupported_media_type", "audio_too_long"}


@given(st.binary(max_size=2000))
def test_random_bytes_give_audio_or_one_exception(data: bytes) -> None:
    assert Decoded(data, seconds=60.0).code in ALLOWED


RAWS = st.builds(
    RawFormat,
    st.sampled_from(["s16", "s24", "s32", "f32", "u8"]),
    st.integers(1_000, 384_000),
    st.integers(1, 64),
    st.sampled_from(["little", "big"]),
)


@given(st.binary(max_size=2000), RAWS)
def test_random_raw_samples_stay_in_range(data: bytes, raw: RawFormat) -> None:
    assert Decoded(data, raw, seconds=60.0).code in ("", "bad_audio")


SEEDS = {
    kind: encoded(tone(4000 if kind != "Opus" else 12_000, 48_000 if kind == "Opus" else RATE),
                  48_000 if kind == "Opus" else RATE, **how)
    for kind, how in FORMATS.items()
}  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 1 << 16),
)
def test_damaged_files_give_audio_or_one_exception(
    kind: str, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(SEEDS[kind])
    for at, value in changes:
        data[at % len(data)] = value
    # Every second file is also truncated.
    cut = len(data) if end % 2 else end % len(data)
    assert Decoded(bytes(data[:cut]), seconds=60.0).code in ALLOWED
