"""MP3 files that understate their length or begin with junk are decoded completely."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from fakes import RATE, Samples, body_of, decoded_body, encoded
from hypothesis import given
from hypothesis import strategies as st

from app.audio.mp3_repair import repair
from app.audio.mpeg_frames import frame_length
from app.audio.patch import apply_patches

LOUD = np.random.default_rng(5).normal(0, 0.2, 4 * RATE).astype(np.float32)
QUIET = np.zeros(4 * RATE, dtype=np.float32)
# Loud, then quiet: judged by its first frames, a file of variable bit rate seems half as long.
SAMPLES = np.concatenate((LOUD, QUIET))


def mp3(samples: Samples, mode: str = "VARIABLE", level: float = 0.0) -> bytes:
    return encoded(samples, format="MP3", bitrate_mode=mode, compression_level=level)


def untagged(data: bytes) -> bytes:
    """An MP3 as an encoder writes it into a pipe: without the frame that states the length."""
    length = frame_length(data)
    assert length is not None
    assert b"Xing" in data[:length]
    return data[length:]


def id3(size: int) -> bytes:
    return b"ID3\3\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + b"x" * size


def patched(data: bytes) -> bytes:
    body = body_of(data)
    try:
        patches = repair(body.fileno(), body.size)
        assert os.pread(body.fileno(), len(data) + 1, 0) == data
        apply_patches(body.fileno(), patches or ())
        assert os.fstat(body.fileno()).st_size == len(data)
        return os.pread(body.fileno(), len(data), 0)
    finally:
        body.close()


def test_variable_bit_rate_without_a_tag_is_decoded_to_its_end() -> None:
    samples = decoded_body(untagged(mp3(SAMPLES)))
    assert len(samples) / RATE == pytest.approx(8, abs=0.2)
    # The first frame, which became the tag, held silence before the sound.
    assert np.sqrt(np.mean(samples[: RATE // 2] ** 2)) > 0.1


@pytest.mark.parametrize("between", [b"", id3(3000), b"TAG" + bytes(125)], ids=len)
def test_joined_files_are_decoded_to_the_end_of_the_last(between: bytes) -> None:
    joined = mp3(LOUD) + between + mp3(SAMPLES) + between + mp3(LOUD)
    assert len(decoded_body(joined)) / RATE == pytest.approx(16, abs=0.5)


def test_constant_bit_rate_that_falls_later_is_decoded_to_its_end() -> None:
    joined = mp3(LOUD, "CONSTANT") + mp3(LOUD, "CONSTANT", 0.9)
    assert len(decoded_body(joined)) / RATE == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize(
    "data",
    [
        mp3(SAMPLES),
        id3(5000) + mp3(SAMPLES),
        mp3(SAMPLES) + b"TAG" + bytes(125),
        mp3(SAMPLES, "CONSTANT"),
        mp3(SAMPLES, "CONSTANT") + b"TAG" + bytes(125),
        untagged(mp3(SAMPLES[::-1])),
        b"\xff\xfd\x90\0" + bytes(518) + b"\xff\xfd\xa0\0" + bytes(648),
    ],
    ids=["tag", "id3", "id3v1", "constant", "constant id3v1", "seems longer", "layer 2"],
)
def test_file_that_states_enough_needs_no_patch(data: bytes) -> None:
    assert patched(data) == data


def test_patched_file_needs_no_further_patch() -> None:
    for data in (untagged(mp3(SAMPLES)), mp3(LOUD) + mp3(SAMPLES)):
        once = patched(data)
        assert once != data
        assert patched(once) == once


@pytest.mark.parametrize("length", [1, 9, 15, 300, 2881, 60_000])
@pytest.mark.parametrize("before", ["junk", "tag and junk", "footer", "APE"])
def test_bytes_before_the_first_frame_are_skipped(before: str, length: int) -> None:
    junk = np.random.default_rng(length).bytes(length)
    front = {
        "junk": junk,
        "tag and junk": id3(200) + junk,
        "footer": b"ID3\4\0\x10\0\0\0\5" + b"x" * 5 + b"3DI" + bytes(7) + junk,
        "APE": b"APETAGEX" + struct.pack("<II", 2000, length) + bytes(16 + length),
    }[before]
    for data in (mp3(LOUD), mp3(LOUD, "CONSTANT"), untagged(mp3(LOUD))):
        samples = decoded_body(front + data)
        assert len(samples) / RATE == pytest.approx(4, abs=0.2)
        assert np.sqrt(np.mean(samples[RATE // 2 : 3 * RATE] ** 2)) > 0.1


def test_stream_that_begins_within_a_frame_is_decoded() -> None:
    whole = mp3(LOUD, "CONSTANT")
    for start in (700, 1001, 5000):
        assert len(decoded_body(whole[start:])) / RATE > 3


@pytest.mark.parametrize(("size", "kept"), [(0, 0.9), (9, 0.9), (10, 0.95), (300, 0.95)])
def test_tag_too_small_for_the_decoder_is_enlarged(size: int, kept: float) -> None:
    assert len(decoded_body(id3(size) + mp3(LOUD, "CONSTANT"))) / RATE >= 4 * kept


def test_few_frames_in_a_row_are_no_stream() -> None:
    """As in an AVI: the bytes between them would be decoded as well."""
    frames = mp3(LOUD, "CONSTANT")
    length = frame_length(frames)
    assert length is not None
    parts = [bytes(500) + frames[at : at + 10 * length] for at in range(0, 200 * length, length)]
    assert patched(b"RIFF" + b"".join(parts)) == b"RIFF" + b"".join(parts)
    # At the end of a file three are enough; two are found in noise.
    last = frames[2 * length : 5 * length]
    assert patched(bytes(500) + last) != bytes(500) + last
    assert patched(bytes(500) + last + b"TAG" + bytes(125))[:3] == b"ID3"
    assert patched(bytes(500) + last[length:]) == bytes(500) + last[length:]


def test_raw_samples_of_a_tone_are_no_stream() -> None:
    """The period of some tones divides the length of a frame."""
    wave = np.sin(2 * np.pi * 300 * np.arange(30_000) / RATE)
    raw = (0.013045551809110554 * 2147483000 * wave).astype("<i4").tobytes()
    layer_1 = raw[551 : 551 + 640]
    assert frame_length(layer_1) == 640
    assert patched(raw) == raw
    frame = b"\xff\xfb\x90\0" + bytes(413)
    assert patched(bytes(7) + frame * 5000) == bytes(7) + frame * 5000
    # Silence is encoded to such frames, but other frames follow in a real recording.
    loud = mp3(LOUD, "CONSTANT")
    length = frame_length(loud)
    assert length is not None
    silence = (loud[:4] + bytes(length - 4)) * 1000
    assert patched(bytes(300) + silence + loud)[:3] == b"ID3"


@given(
    st.lists(
        st.sampled_from(
            [
                id3(0),
                id3(200),
                b"ID3\4\0\x10\x7f\x7f\x7f\x7f",
                b"TAG" + bytes(125),
                b"APETAGEX" + struct.pack("<II", 2000, 100) + bytes(16),
                b"APETAGEX" + b"\xff" * 24,
                b"\xff\xfb\x90\0" + bytes(413),
                b"\xff\xfb\xe0\0" + bytes(32) + b"Xing\0\0\0\3\0\0\0\1\0\0\0\1" + bytes(992),
                b"\xff\xfb\x90\0" + bytes(32) + b"Info",
                b"\xff\xf3\x14\xc0" + bytes(20),
                b"\xff\xfb",
            ]
        ),
        max_size=60,
    ),
    st.binary(max_size=20),
)
def test_patches_never_lengthen_a_file(parts: list[bytes], rest: bytes) -> None:
    patched(b"".join(parts) + rest)
