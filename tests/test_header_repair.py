"""The length in a header against the length of the file: truncated or not, and patches for every
file that libsndfile would not read to its end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from fakes import body_of, decoded_body, encoded, pcm, tone

from app.audio.patch import apply_patches
from app.audio.sniff import Container, inspect

KINDS = ("AIFF", "AU", "CAF", "RF64", "W64", "WAV")
COUNT = 32_000
"""Samples of the files at 16 kHz."""


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, bytes]]:
    return {kind: encoded(tone(COUNT), format=kind) for kind in KINDS}


def inspected(data: bytes) -> Container:
    """The result of `inspect`, which must not change the file."""
    body = body_of(data)
    try:
        container = inspect(body.fileno(), body.size)
        assert os.pread(body.fileno(), len(data) + 1, 0) == data
    finally:
        body.close()
    assert container is not None
    return container


def state_of(data: bytes) -> tuple[str, bool]:
    container = inspected(data)
    return container.name, container.truncated


def patched(data: bytes) -> bytes:
    body = body_of(data)
    try:
        apply_patches(body.fileno(), inspected(data).patches)
        assert os.fstat(body.fileno()).st_size == len(data)
        return os.pread(body.fileno(), len(data), 0)
    finally:
        body.close()


def decoded(data: bytes) -> int:
    """The number of samples that the decoder returns; none of them may be silent."""
    samples = decoded_body(data)
    assert np.sqrt(np.mean(samples**2)) > 0.3
    return len(samples)


def with_length(data: bytes, at: int, code: str, length: int) -> bytes:
    return data[:at] + struct.pack(code, length) + data[at + struct.calcsize(code) :]


# WAV.


def wav_with_length(length: int, riff: int, before: bytes = b"", magic: bytes = b"RIFF") -> bytes:
    """Half a second of samples with these lengths in the data chunk and in the RIFF header."""
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
def test_wav_gets_its_length_if_the_header_states_zero(magic: bytes) -> None:
    data = wav_with_length(0, 0, magic=magic)
    assert state_of(data) == ("WAV", False)
    assert patched(data) == wav_with_length(16_000, len(data) - 8, magic=magic)


@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX"])
@pytest.mark.parametrize("riff", [0, 36, 0x7FFF0024, 0xFFFFFFFF])
@pytest.mark.parametrize("length", [0x7FFF0000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_wav_needs_no_patch_if_its_length_is_open(length: int, riff: int, magic: bytes) -> None:
    """ffmpeg, arecord and sox write such a header into a pipe. The decoder needs no copy for it."""
    data = wav_with_length(length, riff, magic=magic)
    assert inspected(data) == Container("WAV", True)
    assert decoded(data) == 8000


def test_wav_with_its_length_needs_no_patch() -> None:
    assert inspected(wav_with_length(16_000, 36 + 16_000)) == Container("WAV", True)


def test_wav_that_states_more_is_truncated() -> None:
    assert state_of(wav_with_length(16_001, 36 + 16_001)) == ("WAV", True)


def test_wav_chunks_before_the_data_are_skipped_with_their_padding() -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO\0" + b"\0"
    assert state_of(wav_with_length(16_001, 36, before=odd)) == ("WAV", True)
    data = wav_with_length(0, 0, before=odd)
    assert state_of(data) == ("WAV", False)
    assert patched(data) == wav_with_length(16_000, len(data) - 8, before=odd)


def test_wav_without_a_data_chunk_is_truncated() -> None:
    data = wav_with_length(16_000, 36)
    assert inspected(data[:36]) == Container("WAV", True, True)
    assert inspected(data[:12]) == Container("WAV", True, True)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_wav_without_samples_gets_no_length(length: int) -> None:
    assert inspected(wav_with_length(length, 36)[:44]).patches == ()


@pytest.mark.parametrize("length", [0, 0x7FFF0000, 0xFFFFFFFE, 0xFFFFFFFF])
def test_wav_longer_than_its_length_field_states_the_greatest_length(length: int) -> None:
    """The file is sparse, so nothing of that size is made."""
    body = body_of(wav_with_length(length, length))
    try:
        size = 5 << 30
        os.truncate(body.fileno(), size)
        container = inspect(body.fileno(), size)
        assert container is not None
        assert (container.name, container.truncated) == ("WAV", True)
        apply_patches(body.fileno(), container.patches)
        (stated,) = struct.unpack("<I", os.pread(body.fileno(), 4, 40))
        assert stated >= 0xFFFFFFFE
    finally:
        body.close()


def test_wav_longer_than_its_open_length_states_its_own() -> None:
    """arecord's 2 GiB, and 3 GiB of samples."""
    body = body_of(wav_with_length(0x7FFF0000, 0x7FFF0024))
    try:
        size = 3 << 30
        os.truncate(body.fileno(), size)
        container = inspect(body.fileno(), size)
        assert container is not None
        assert not container.truncated
        apply_patches(body.fileno(), container.patches)
        assert struct.unpack("<I", os.pread(body.fileno(), 4, 40)) == (size - 44,)
    finally:
        body.close()


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFFFFFFFFFF])
@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_rf64_gets_its_length_if_that_is_open(
    files: dict[str, bytes], unknown: int, length: int
) -> None:
    whole = files["RF64"]
    at = whole.index(b"ds64") + 8
    data = with_length(with_length(whole, at, "<Q", unknown), at + 8, "<Q", unknown)
    data = with_length(data, data.index(b"data") + 4, "<I", length)
    assert state_of(data) == ("WAV", False)
    assert patched(data)[12:36] == whole[12:36]
    assert decoded(data) == COUNT


# The other formats: the chunk with the samples, its length field, and values for "not known".

FIELDS = {
    "AIFF": (b"SSND", 4, ">I", [0, 4, 8, 0x7F000008, 0xFFFFFFFF]),
    "AU": (b".snd", 8, ">I", [0, 0x7FFFFFFF, 0xFFFFFFFF]),
    "W64": (b"data\xf3", 16, "<Q", [0, 24, (1 << 63) - 1, (1 << 64) - 1]),
    "CAF": (b"data", 4, ">q", [0, 4, -1, (1 << 63) - 1]),
}
OPEN = [(kind, length) for kind, (*_, lengths) in FIELDS.items() for length in lengths]


@pytest.mark.parametrize(("kind", "length"), OPEN)
def test_open_length_becomes_that_of_the_file(
    files: dict[str, bytes], kind: str, length: int
) -> None:
    chunk, further, code, _ = FIELDS[kind]
    data = files[kind]
    at = data.index(chunk) + further
    opened = with_length(data, at, code, length)
    assert state_of(opened) == (kind, False)
    assert decoded(opened) == COUNT
    # A length that is neither open nor that of the file.
    (true,) = struct.unpack_from(code, data, at)
    assert state_of(with_length(data, at, code, true + 2)) == (kind, True)


@pytest.mark.parametrize("stated", [COUNT * 2 + 2, 0x10000000, 0x7FFEFFFF])
def test_au_that_states_more_is_truncated_and_decoded(files: dict[str, bytes], stated: int) -> None:
    data = with_length(files["AU"], 8, ">I", stated)
    assert inspected(data) == Container("AU", True, True)
    assert decoded(data) == COUNT


def test_caf_that_states_more_gets_the_length_that_is_there(files: dict[str, bytes]) -> None:
    """libsndfile refuses it otherwise."""
    data = files["CAF"]
    at = data.index(b"data") + 4
    cut = data[: len(data) // 2]
    assert state_of(cut) == ("CAF", True)
    assert patched(cut) == cut[:at] + struct.pack(">q", len(cut) - at - 8) + cut[at + 8 :]


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF])
def test_aiff_by_ffmpeg_in_a_pipe_needs_no_patch(files: dict[str, bytes], unknown: int) -> None:
    """All three of its lengths are unknown."""
    data = whole = files["AIFF"]
    for at in (4, whole.index(b"COMM") + 10, whole.index(b"SSND") + 4):
        data = with_length(data, at, ">I", unknown)
    assert inspected(data) == Container("AIFF", True)
    assert decoded(data) == COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_patched_file_needs_no_further_patch(files: dict[str, bytes], kind: str) -> None:
    if kind in FIELDS:
        chunk, further, code, lengths = FIELDS[kind]
        data = with_length(files[kind], files[kind].index(chunk) + further, code, lengths[-2])
    else:
        at = files[kind].index(b"data") + 4
        data = with_length(files[kind], at, "<I", 0)
    once = patched(data)
    assert inspected(once).patches == ()


@pytest.mark.parametrize("length", [1 << 62, (1 << 64) - 1])
def test_length_beyond_any_file_is_no_position_to_read(length: int) -> None:
    """`pread` refuses such a position with an OverflowError."""
    guid = b"LIST" + bytes(12)
    w64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00" + struct.pack("<Q", 200)
    w64 += bytes(16) + guid + struct.pack("<Q", length) + bytes(8)
    assert inspected(w64) == Container("W64", True, True)
    caf = b"caff\0\1\0\0" + b"info" + struct.pack(">Q", min(length, (1 << 63) - 1))
    assert inspected(caf) == Container("CAF", True, True)


# Lengths that state less than the file holds.

CHUNKS = {
    "WAV": struct.Struct("<4sI"),
    "RF64": struct.Struct("<4sI"),
    "AIFF": struct.Struct(">4sI"),
    "CAF": struct.Struct(">4sq"),
}


def with_half_length(kind: str, data: bytes) -> bytes:
    """The file with half its length in the header, as if samples were counted instead of bytes."""
    if kind == "RF64":
        at = data.index(b"ds64") + 16
        return with_length(data, at, "<Q", COUNT)
    chunk, further, code, _ = {**FIELDS, "WAV": (b"data", 4, "<I", [])}[kind]
    return with_length(data, data.index(chunk) + further, code, COUNT)


@pytest.mark.parametrize("kind", KINDS)
def test_file_that_states_half_its_length_is_read_on(files: dict[str, bytes], kind: str) -> None:
    data = with_half_length(kind, files[kind])
    assert state_of(data)[1] is False
    assert decoded(data) == COUNT


@pytest.mark.parametrize("kind", sorted(CHUNKS))
@pytest.mark.parametrize("name", [b"LIST", b"id3 ", b"xyz1"])
def test_chunks_after_the_samples_are_not_read(
    files: dict[str, bytes], kind: str, name: bytes
) -> None:
    """Known by their names, or by their lengths up to the end of the file."""
    head = CHUNKS[kind]
    after = head.pack(name, 5000) + bytes(5000) + head.pack(b"xyz2", 4) + bytes(4)
    assert decoded(files[kind] + after) == COUNT
    assert inspected(files[kind] + after).patches == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tag",
    [b"TAG" + bytes(125), b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0x80000000) + bytes(8)],
    ids=["ID3v1", "APE"],
)
def test_tag_after_the_samples_is_not_read_on(
    files: dict[str, bytes], kind: str, tag: bytes
) -> None:
    container = inspected(files[kind] + tag)
    assert (container.patches, container.truncated) == ((), False)


def test_chunk_that_exceeds_the_file_is_taken_for_samples(files: dict[str, bytes]) -> None:
    after = b"abcd" + struct.pack("<I", 1 << 20) + tone(1000).astype("<f4").tobytes()
    assert decoded(files["WAV"] + after) == COUNT + 4 + 2000


def test_single_byte_after_the_samples_is_ignored(files: dict[str, bytes]) -> None:
    assert inspected(files["WAV"] + b"\0") == Container("WAV", True)


def test_chunk_after_an_odd_length_may_follow_without_padding() -> None:
    data = encoded(tone(8001), format="WAV", subtype="PCM_U8")
    after = b"LIST" + struct.pack("<I", 100) + b"INFO" + bytes(96)
    for padding in (b"", b"\0"):
        whole = data[: data.index(b"data") + 8 + 8001] + padding + after
        assert inspected(whole).patches == ()
