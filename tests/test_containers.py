"""Files recognised by their bytes, and what they say of their own length."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from fakes import body_of, encoded, pcm, tone
from hypothesis import given
from hypothesis import strategies as st

from app.audio.sniff import READABLE, Container, inspect, recognise

FORMATS = {
    "WAV": {"format": "WAV"},
    "WAVEX": {"format": "WAVEX"},
    "RF64": {"format": "RF64"},
    "RIFX": {"format": "WAV", "endian": "BIG"},
    "FLAC": {"format": "FLAC"},
    "Vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "Opus": {"format": "OGG", "subtype": "OPUS"},
    "MP3": {"format": "MP3"},
    "AIFF": {"format": "AIFF"},
    "AU": {"format": "AU"},
    "CAF": {"format": "CAF"},
    "W64": {"format": "W64"},
}
NAMES = {"WAVEX": "WAV", "RF64": "WAV", "RIFX": "WAV", "Vorbis": "Ogg", "Opus": "Ogg"}


def looked_at(data: bytes) -> Container | None:
    body = body_of(data)
    try:
        return inspect(body.fileno(), body.size)
    finally:
        body.close()


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, bytes]]:
    return {kind: encoded(tone(32_000), **how) for kind, how in FORMATS.items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_file_is_recognised_and_not_truncated(files: dict[str, bytes], kind: str) -> None:
    name = NAMES.get(kind, kind)
    assert name in READABLE
    assert looked_at(files[kind]) == Container(name, readable=True, truncated=False)


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - {"FLAC", "MP3"}))
def test_half_a_file_is_truncated(files: dict[str, bytes], kind: str) -> None:
    # Of FLAC the decoder says so, and MP3 has no length.
    data = files[kind]
    assert looked_at(data[: len(data) // 2]) == Container(
        NAMES.get(kind, kind), readable=True, truncated=True
    )


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00webm", "webm/Matroska"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00", "mp4/m4a"),
        (b"\x00\x00\x00\x20ftypisom", "mp4/m4a"),
        (b"\x00\x00\x10\x00moov", "mp4/m4a"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc", "AAC"),
        (b"\xff\xf9\x50\x80\x02\x1f\xfc", "AAC"),
        (b"#!AMR\n", "AMR"),
        (b"0&\xb2u\x8ef\xcf\x11", "WMA"),
        (b"MThd\0\0\0\6", "MIDI"),
    ],
)
def test_what_cannot_be_read_is_named(head: bytes, name: str) -> None:
    assert recognise(head) == name
    assert name not in READABLE
    assert looked_at(head) == Container(name, readable=False)


@pytest.mark.parametrize("size", [0, 100, 30_000])
def test_what_stands_behind_an_id3_tag_is_named(size: int) -> None:
    tag = b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    adts = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)
    assert looked_at(tag + adts * 50) == Container("AAC", readable=False)
    assert looked_at(tag + b"\x1aE\xdf\xa3" + bytes(99)) == Container("webm/Matroska", False)
    # libsndfile reads it there, and its lengths are not for us to mend.
    assert looked_at(tag + encoded(tone(1000))) == Container("WAV", True)
    assert looked_at(tag + encoded(tone(1000), format="FLAC")) == Container("FLAC", True)
    # A damaged MP3, of which libsndfile says that it cannot be read.
    assert looked_at(tag + bytes(1000)) == Container("MP3", True)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"R",
        b"RIFF",
        b"RIFF\0\0\0\0AVI ",
        b"FORM\0\0\0\x008SVX",
        b"<html>",
        b"\0" * 64,
        b"\xff",
        b"\xff\xff\xff\xff" * 16,
        b"riff but not that one",
    ],
)
def test_what_is_nothing_is_nothing(head: bytes) -> None:
    assert recognise(head) is None
    assert looked_at(head) is None


def mpeg_frame(second: int, third: int, length: int) -> bytes:
    return bytes([0xFF, second, third, 0]) + bytes(length - 4)


@pytest.mark.parametrize(
    ("second", "third", "length"),
    [
        (0xFB, 0x90, 417),  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz
        (0xFB, 0x92, 418),  # the same, padded
        (0xF3, 0x88, 288),  # MPEG 2 layer III, 64 kbit/s, 16 kHz
        (0xE3, 0x48, 288),  # MPEG 2.5 layer III, 32 kbit/s, 8 kHz
        (0xFD, 0x90, 522),  # MPEG 1 layer II, 160 kbit/s, 44.1 kHz
        (0xFF, 0x90, 312),  # MPEG 1 layer I, 288 kbit/s, 44.1 kHz: 4-byte slots
    ],
)
def test_mpeg_frames_are_counted_in_the_right_length(second: int, third: int, length: int) -> None:
    frame = mpeg_frame(second, third, length)
    assert recognise(frame * 2) == "MP3"
    # One frame alone, or two in the wrong distance, is found in any noise.
    assert recognise(frame) is None
    assert recognise(frame + b"\0" + frame) is None
    # Or two of different sample rates.
    assert recognise(frame + mpeg_frame(second, third ^ 4, length) * 2) is None


@pytest.mark.parametrize(
    ("second", "third"),
    [(0xEB, 0x90), (0xF9, 0x90), (0xFB, 0xF0), (0xFB, 0x00), (0xFB, 0x9C)],
    ids=["version", "layer", "rate 15", "free rate", "frequency"],
)
def test_reserved_values_are_no_mpeg(second: int, third: int) -> None:
    assert recognise(mpeg_frame(second, third, 417) * 2) != "MP3"


def test_raw_samples_are_hardly_ever_taken_for_a_file() -> None:
    random = np.random.default_rng(7)
    named = [looked_at(random.bytes(20_000)) for _ in range(1000)]
    # Two bytes make an AAC.
    assert sum(container is not None for container in named) <= 1
    noise = random.normal(0, 1, 20_000).clip(-1, 1)
    for level in (1e-4, 1e-3, 0.01, 0.1, 1.0):
        assert looked_at((noise * level * 32767).astype("<i2").tobytes()) is None
        assert looked_at((noise * level * 127 + 128).astype("u1").tobytes()) is None
        assert looked_at((noise * level).astype("<f4").tobytes()) is None
    assert looked_at(pcm(2000)) is None


# Streamed WAV.


def wav_with_length(length: int, riff: int, before: bytes = b"", magic: bytes = b"RIFF") -> bytes:
    order = ">" if magic == b"RIFX" else "<"
    format_chunk = struct.pack(order + "HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    samples = pcm(8000)
    if magic == b"RIFX":
        samples = np.frombuffer(samples, "<i2").astype(">i2").tobytes()
    return (
        magic
        + struct.pack(order + "I", riff)
        + b"WAVEfmt "
        + struct.pack(order + "I", 16)
        + format_chunk
        + before
        + b"data"
        + struct.pack(order + "I", length)
        + samples
    )


@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX"])
@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF])
def test_a_streamed_wav_gets_its_length_written_in(magic: bytes, unknown: int) -> None:
    data = wav_with_length(unknown, unknown, magic=magic)
    body = body_of(data)
    try:
        assert inspect(body.fileno(), body.size) == Container("WAV", True, False)
        mended = os.pread(body.fileno(), len(data) + 1, 0)
    finally:
        body.close()
    assert mended == wav_with_length(16_000, len(data) - 8, magic=magic)


def test_a_wav_that_says_its_length_is_not_touched() -> None:
    data = wav_with_length(16_000, 36 + 16_000)
    body = body_of(data)
    try:
        assert inspect(body.fileno(), body.size) == Container("WAV", True, False)
        assert os.pread(body.fileno(), len(data) + 1, 0) == data
    finally:
        body.close()


def test_a_wav_that_promises_more_is_truncated() -> None:
    assert looked_at(wav_with_length(16_001, 36 + 16_001)) == Container("WAV", True, True)


def test_chunks_before_the_data_are_stepped_over_with_their_padding() -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO\0" + b"\0"
    container = looked_at(wav_with_length(16_001, 36, before=odd))
    assert container == Container("WAV", True, True)
    assert looked_at(wav_with_length(0, 0, before=odd)) == Container("WAV", True, False)


def test_a_wav_without_a_data_chunk() -> None:
    data = wav_with_length(16_000, 36)
    assert looked_at(data[:36]) == Container("WAV", True, True)
    assert looked_at(data[:12]) == Container("WAV", True, True)


def test_a_streamed_wav_too_large_for_the_length_field() -> None:
    """Sparse, so nothing of that size is made."""
    body = body_of(wav_with_length(0xFFFFFFFF, 0xFFFFFFFF))
    try:
        size = 5 << 30
        os.truncate(body.fileno(), size)
        assert inspect(body.fileno(), size) == Container("WAV", True, True)
    finally:
        body.close()


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFFFFFFFFFF])
@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_a_streamed_rf64_gets_its_length_written_in(unknown: int, length: int) -> None:
    whole = encoded(tone(16_000), format="RF64")
    data = bytearray(whole)
    at = data.index(b"ds64") + 8
    data[at : at + 16] = struct.pack("<QQ", unknown, unknown)
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", length)
    body = body_of(bytes(data))
    try:
        assert inspect(body.fileno(), body.size) == Container("WAV", True, False)
        ds64 = os.pread(body.fileno(), len(data), 0)[12:36]
    finally:
        body.close()
    assert ds64 == whole[12:36]


def test_a_caf_whose_length_is_left_open() -> None:
    data = bytearray(encoded(tone(16_000), format="CAF"))
    at = data.index(b"data") + 4
    data[at : at + 8] = b"\xff" * 8
    assert looked_at(bytes(data)) == Container("CAF", True, False)


def test_a_caf_that_promises_more_gets_the_length_that_is_there() -> None:
    """libsndfile would refuse it."""
    data = encoded(tone(16_000), format="CAF")
    at = data.index(b"data") + 4
    cut = data[: len(data) // 2]
    body = body_of(cut)
    try:
        assert inspect(body.fileno(), body.size) == Container("CAF", True, True)
        mended = os.pread(body.fileno(), len(cut), 0)
    finally:
        body.close()
    assert mended == cut[:at] + struct.pack(">q", len(cut) - at - 8) + cut[at + 8 :]


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
def test_an_ogg_whose_last_page_is_not_whole(files: dict[str, bytes], kind: str) -> None:
    data = files[kind]
    last = data.rindex(b"OggS")
    for end in (last - 1, last + 10, last + 27, last + 40, len(data) - 1):
        assert looked_at(data[:end]) == Container("Ogg", True, True)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
@pytest.mark.parametrize("flip", [0, 1], ids=["same serial number", "other serial number"])
def test_of_ogg_files_joined_to_one_only_the_first_is_read(
    files: dict[str, bytes], kind: str, flip: int
) -> None:
    one = files[kind]
    serial = one[14:18]
    other = one.replace(serial, bytes(byte ^ flip for byte in serial))
    assert looked_at(one + other) == Container("Ogg", True, True)


def test_a_second_ogg_is_found_across_the_border_of_what_is_read_at_once(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = files["Vorbis"]
    for length in range(len(one) - 6, len(one) + 6):
        monkeypatch.setattr("app.audio.sniff._BLOCK_BYTES", length)
        assert looked_at(one + one) == Container("Ogg", True, True)
        assert looked_at(one) == Container("Ogg", True, False)


def test_streams_side_by_side_in_an_ogg_are_no_reason(files: dict[str, bytes]) -> None:
    # As with a skeleton: the first pages of all streams stand before the others.
    page = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(8) + b"\1\10fishead\0"
    assert looked_at(page + files["Vorbis"]) == Container("Ogg", True, False)


# The same of the other formats. Where the samples lie, and what was promised of them.


def with_length(data: bytes, at: int, code: str, length: int) -> bytes:
    return data[:at] + struct.pack(code, length) + data[at + struct.calcsize(code) :]


FIELDS = {
    "AIFF": (b"SSND", 4, ">I", [0, 8, 0x7F000008, 0xFFFFFFFF]),
    "AU": (b".snd", 8, ">I", [0, 0x7FFFFFFF, 0xFFFFFFFF]),
    "W64": (b"data\xf3", 16, "<Q", [0, 24, (1 << 63) - 1, (1 << 64) - 1]),
    "CAF": (b"data", 4, ">q", [0, 4, -1, (1 << 63) - 1]),
}
OPEN = [(kind, length) for kind, (*_, lengths) in FIELDS.items() for length in lengths]


@pytest.mark.parametrize(("kind", "length"), OPEN)
def test_a_length_that_is_left_open_is_that_of_the_body(
    files: dict[str, bytes], kind: str, length: int
) -> None:
    chunk, further, code, _ = FIELDS[kind]
    data = files[kind]
    at = data.index(chunk) + further
    assert looked_at(with_length(data, at, code, length)) == Container(kind, True, False)
    # What is neither open nor there.
    (true,) = struct.unpack_from(code, data, at)
    assert looked_at(with_length(data, at, code, true + 2)) == Container(kind, True, True)


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF])
def test_an_aiff_as_ffmpeg_leaves_it_in_a_pipe(files: dict[str, bytes], unknown: int) -> None:
    """All three of its lengths are those of nothing; two are written in."""
    whole = files["AIFF"]
    frames, samples = whole.index(b"COMM") + 10, whole.index(b"SSND") + 4
    data = whole
    for at in (4, frames, samples):
        data = with_length(data, at, ">I", unknown)
    body = body_of(data)
    try:
        assert inspect(body.fileno(), body.size) == Container("AIFF", True, False)
        mended = os.pread(body.fileno(), len(data), 0)
    finally:
        body.close()
    assert mended == with_length(whole, frames, ">I", unknown)


@given(
    st.sampled_from(
        [
            b"RIFF\x00\x00\x00\x00WAVE",
            b"RIFX\x00\x00\x00\x00WAVE",
            b"RF64\x00\x00\x00\x00WAVE",
            b"FORM\x00\x00\x00\x00AIFF",
            b".snd",
            b"caff",
            b"OggS",
            b"fLaC",
            b"ID3",
            b"\xff\xfb\x90\x00",
            b"riff.\x91\xcf\x11\xa5\xd6(\xdb\x04\xc1\x00\x00",
        ]
    ),
    st.binary(max_size=200),
)
def test_whatever_follows_the_first_bytes_the_file_has_a_name_and_no_more(
    magic: bytes, rest: bytes
) -> None:
    container = looked_at(magic + rest)
    assert container is None or container.readable
    if not magic.startswith(b"\xff"):
        assert container is not None


@pytest.mark.parametrize("length", [1 << 62, (1 << 64) - 1])
def test_a_64_bit_length_beyond_any_file(length: int) -> None:
    """Found by scripts/dev/fuzz: `pread` cannot go there, and said so with an OverflowError."""
    guid = b"LIST" + bytes(12)
    w64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00" + struct.pack("<Q", 200)
    w64 += bytes(16) + guid + struct.pack("<Q", length) + bytes(8)
    assert looked_at(w64) == Container("W64", True, True)
    caf = b"caff\0\1\0\0" + b"info" + struct.pack(">Q", min(length, (1 << 63) - 1))
    assert looked_at(caf) == Container("CAF", True, True)
