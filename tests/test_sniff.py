"""Files recognised by their bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fakes import body_of, encoded, pcm, tone
from hypothesis import given
from hypothesis import strategies as st

from app.audio.ogg import Link
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


def inspected(data: bytes) -> Container | None:
    body = body_of(data)
    try:
        return inspect(body.fileno(), body.size)
    finally:
        body.close()


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, bytes]]:
    return {kind: encoded(tone(32_000), **how) for kind, how in FORMATS.items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_inspect_recognises_a_whole_file(files: dict[str, bytes], kind: str) -> None:
    name = NAMES.get(kind, kind)
    assert name in READABLE
    assert inspected(files[kind]) == Container(name, readable=True, truncated=False)


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - {"FLAC", "MP3"}))
def test_inspect_reports_half_a_file_as_truncated(files: dict[str, bytes], kind: str) -> None:
    # The decoder detects a truncated FLAC, and an MP3 has no length.
    data = files[kind]
    found = inspected(data[: len(data) // 2])
    assert found is not None
    assert (found.name, found.truncated) == (NAMES.get(kind, kind), True)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00webm", "webm/Matroska"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00", "mp4/m4a"),
        (b"\x00\x00\x00\x20ftypisom", "mp4/m4a"),
        (b"\x00\x00\x10\x00moov", "mp4/m4a"),
        (b"\x00\x00\x00\x18styp", "mp4/m4a"),
        (b"\x00\x00\x00\x08wide", "mp4/m4a"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", "AVI"),
        ((b"\x47\x40" + bytes(186)) * 6, "MPEG-TS"),
        (bytes(4) + (b"\x47\x40" + bytes(190)) * 6, "MPEG-TS"),
        ((b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)) * 2, "AAC"),
        ((b"\xff\xf9\x50\x80\x02\x1f\xfc" + bytes(9)) * 2, "AAC"),
        (b"#!AMR\n", "AMR"),
        (b"0&\xb2u\x8ef\xcf\x11", "WMA"),
        (b"MThd\0\0\0\6", "MIDI"),
        (b"FLV\1\5\0\0\0\t", "FLV"),
        (b"\0\0\1\xba\x44\0", "MPEG-PS"),
        (b".RMF\0\0\0\x12", "RealMedia"),
    ],
)
def test_recognise_names_an_unreadable_format(head: bytes, name: str) -> None:
    assert recognise(head) == name
    assert name not in READABLE
    assert inspected(head) == Container(name, readable=False)


@pytest.mark.parametrize("size", [0, 100, 30_000])
def test_inspect_recognises_a_file_behind_an_id3_tag(size: int) -> None:
    tag = b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    adts = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)
    assert inspected(tag + adts * 50) == Container("AAC", readable=False)
    assert inspected(tag + b"\x1aE\xdf\xa3" + bytes(99)) == Container("webm/Matroska", False)
    # libsndfile reads these behind a tag, and compares the lengths itself.
    assert inspected(tag + encoded(tone(1000))) == Container("WAV", True)
    assert inspected(tag + encoded(tone(1000), format="FLAC")) == Container("FLAC", True)
    # This is a damaged MP3, which libsndfile will refuse.
    assert inspected(tag + bytes(1000)) == Container("MP3", True)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"R",
        b"RIFF",
        b"RIFF\0\0\0\0ACON",
        b"FORM\0\0\0\x008SVX",
        b"<html>",
        b"\0" * 64,
        b"\xff",
        b"\xff\xff\xff\xff" * 16,
        b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(99),
        (b"\x47" + bytes(187)) * 4,
        b"riff but not that one",
    ],
)
def test_recognise_returns_none_for_an_unknown_file(head: bytes) -> None:
    assert recognise(head) is None
    assert inspected(head) is None


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
def test_recognise_finds_mpeg_frames_by_their_length(second: int, third: int, length: int) -> None:
    frame = mpeg_frame(second, third, length)
    assert recognise(frame * 2) == "MP3"
    # A single frame, or two at the wrong distance, are found in any noise.
    assert recognise(frame) is None
    assert recognise(frame + b"\0" + frame) is None
    # So are two of different sample rates.
    assert recognise(frame + mpeg_frame(second, third ^ 4, length) * 2) is None


@pytest.mark.parametrize(
    ("second", "third"),
    [(0xEB, 0x90), (0xF9, 0x90), (0xFB, 0xF0), (0xFB, 0x00), (0xFB, 0x9C)],
    ids=["version", "layer", "rate 15", "free rate", "frequency"],
)
def test_recognise_rejects_reserved_values_in_mpeg_headers(second: int, third: int) -> None:
    assert recognise(mpeg_frame(second, third, 417) * 2) != "MP3"


def test_inspect_hardly_ever_recognises_raw_samples() -> None:
    random = np.random.default_rng(7)
    named = [inspected(random.bytes(20_000)) for _ in range(1000)]
    assert sum(container is not None for container in named) == 0
    noise = random.normal(0, 1, 20_000).clip(-1, 1)
    for level in (1e-4, 1e-3, 0.01, 0.1, 1.0):
        assert inspected((noise * level * 32767).astype("<i2").tobytes()) is None
        assert inspected((noise * level * 127 + 128).astype("u1").tobytes()) is None
        assert inspected((noise * level).astype("<f4").tobytes()) is None
    assert inspected(pcm(2000)) is None


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
def test_inspect_reports_an_ogg_without_its_end_as_truncated(
    files: dict[str, bytes], kind: str
) -> None:
    data = files[kind]
    last = data.rindex(b"OggS")
    for end in (last - 1, last + 10, last + 27, last + 40, len(data) - 1):
        assert inspected(data[:end]) == Container("Ogg", True, True)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
@pytest.mark.parametrize("flip", [0, 1], ids=["same serial number", "other serial number"])
def test_inspect_finds_the_links_of_an_ogg(files: dict[str, bytes], kind: str, flip: int) -> None:
    one = files[kind]
    serial = one[14:18]
    other = one.replace(serial, bytes(byte ^ flip for byte in serial))
    found = inspected(one + other)
    assert found is not None
    assert not found.truncated
    size = len(one)
    assert found.links == (Link(0, size, kind, 1), Link(size, 2 * size, kind, 1))


def test_inspect_finds_a_second_ogg_across_the_border_of_two_blocks(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = files["Vorbis"]
    for length in range(len(one) - 6, len(one) + 6):
        monkeypatch.setattr("app.audio.ogg._BLOCK_BYTES", length)
        found = inspected(one + one)
        assert found is not None
        assert len(found.links) == 2
        assert inspected(one) == Container("Ogg", True, False)


def test_inspect_accepts_parallel_streams_in_an_ogg(files: dict[str, bytes]) -> None:
    # With a skeleton stream the first pages of all streams precede the others.
    page = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(8) + b"\1\10fishead\0"
    assert inspected(page + files["Vorbis"]) == Container("Ogg", True, False)


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
def test_inspect_names_any_file_with_known_first_bytes(magic: bytes, rest: bytes) -> None:
    container = inspected(magic + rest)
    assert container is None or container.readable
    if not magic.startswith(b"\xff"):
        assert container is not None
