"""Ogg files: links that follow one another, ends without a flag, FLAC and Speex, and extracts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import RATE, body_of, encoded, tone
from node import ROOT
from ogg_pages import changed, flac_in_ogg, later, without_end

from app.audio import ogg
from app.audio.sniff import inspect
from app.audio.stream import AudioError, AudioStream, Samples

FIELD = ROOT.parent / "shared" / "field"


def link(seconds: float, subtype: str, rate: int = RATE, channels: int = 1) -> bytes:
    samples = tone(round(seconds * rate), rate, channels)
    return encoded(samples, rate, format="OGG", subtype=subtype)


@pytest.fixture(scope="module")
def links() -> Iterator[dict[str, bytes]]:
    return {
        "vorbis": link(2.0, "VORBIS"),
        "vorbis stereo": link(1.0, "VORBIS", 44_100, 2),
        "opus": link(1.0, "OPUS", 48_000),
        "opus stereo": link(0.5, "OPUS", RATE, 2),
        "flac": flac_in_ogg(encoded(tone(24_000), format="FLAC")),
    }


def decoded(
    data: bytes, channel: int | None = None, max_seconds: float = 3600.0
) -> tuple[Samples, AudioStream]:
    body = body_of(data)
    try:
        stream = AudioStream(
            body.fileno(), body.size, None, max_seconds, channel=channel, extract=body.extract
        )
        blocks = []
        while (block := stream.read()) is not None:
            blocks.append(block)
        stream.close()
        return np.concatenate(blocks), stream
    finally:
        body.close()


def seconds(data: bytes) -> tuple[float, bool]:
    samples, stream = decoded(data)
    assert stream.seconds == pytest.approx(len(samples) / RATE, abs=0.01)
    return round(len(samples) / RATE, 1), stream.truncated


# Links.


@pytest.mark.parametrize(
    ("names", "length"),
    [
        (["vorbis", "vorbis"], 4.0),
        (["vorbis", "vorbis stereo"], 3.0),
        (["opus", "opus stereo", "opus"], 2.5),
        (["vorbis stereo", "opus", "flac", "vorbis"], 5.5),
    ],
)
def test_every_link_is_read(links: dict[str, bytes], names: list[str], length: float) -> None:
    samples, stream = decoded(b"".join(links[name] for name in names))
    assert len(samples) / RATE == pytest.approx(length, abs=0.05)
    assert not stream.truncated
    assert stream.declared_seconds is None
    # No link is silent.
    for at in np.arange(0.1, length - 0.1, 0.1):
        piece = samples[round(at * RATE) : round((at + 0.1) * RATE)]
        assert np.abs(piece).max() > 0.2


def test_links_without_the_flag_of_the_end_are_read(links: dict[str, bytes]) -> None:
    data = without_end(links["vorbis"]) + without_end(links["vorbis"])
    assert seconds(data) == (4.0, False)


def test_second_link_that_breaks_off_is_reported(links: dict[str, bytes]) -> None:
    data = links["vorbis"] + links["opus"]
    length, truncated = seconds(data[: -len(links["opus"]) // 3])
    assert 2.0 < length < 3.0
    assert truncated


def test_link_that_cannot_be_read_is_skipped_and_reported(links: dict[str, bytes]) -> None:
    damaged = bytearray(links["vorbis"])
    damaged[40:200] = bytes(160)
    assert seconds(links["opus"] + bytes(damaged) + links["opus"]) == (2.0, True)
    assert seconds(bytes(damaged) + links["opus"]) == (1.0, True)


def test_file_of_links_that_cannot_be_read_is_an_error(links: dict[str, bytes]) -> None:
    damaged = bytearray(links["vorbis"])
    damaged[40:200] = bytes(160)
    with pytest.raises(AudioError) as caught:
        decoded(bytes(damaged) * 2)
    assert caught.value.failure.code == "bad_audio"


def test_split_recording_is_silent_where_a_link_has_fewer_channels(
    links: dict[str, bytes],
) -> None:
    data = links["vorbis"] + links["vorbis stereo"]
    first, stream = decoded(data, channel=0)
    assert stream.channels == 2
    second, _ = decoded(data, channel=1)
    assert len(first) == len(second)
    assert np.abs(first[: 2 * RATE]).max() > 0.2
    assert np.abs(second[: 2 * RATE - 800]).max() == 0.0
    assert np.abs(second[2 * RATE + 800 :]).max() > 0.2


def test_links_together_are_limited(links: dict[str, bytes]) -> None:
    with pytest.raises(AudioError) as caught:
        decoded(links["vorbis"] * 3, max_seconds=5.0)
    assert caught.value.failure.code == "audio_too_long"
    assert len(decoded(links["vorbis"] * 3, max_seconds=6.5)[0]) == 6 * RATE


def test_number_of_links_is_limited(
    links: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ogg, "MAX_LINKS", 3)
    assert seconds(links["opus"] * 3) == (3.0, False)
    assert seconds(links["opus"] * 4) == (3.0, True)


def test_number_of_first_pages_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a file of nothing else would take minutes."""
    monkeypatch.setattr(ogg, "_MAX_FIRST_PAGES", 100)
    page = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(8) + b"\0"
    assert len(page) == 27
    body = body_of(page * 5000)
    assert ogg.scan(body.fileno(), body.size).truncated
    body.close()


# Ends.


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_file_without_the_flag_of_the_end_is_whole(links: dict[str, bytes], name: str) -> None:
    length = {"vorbis": 2.0, "opus": 1.0}[name]
    assert seconds(without_end(links[name])) == (length, False)


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_file_that_ends_within_a_page_is_truncated(links: dict[str, bytes], name: str) -> None:
    data = without_end(links[name])
    last = data.rindex(b"OggS")
    for end in (last - 1, last + 1, last + 10, last + 27, len(data) - 1):
        body = body_of(data[:end])
        container = inspect(body.fileno(), end)
        body.close()
        assert container is not None
        assert container.truncated


def test_file_that_ends_within_a_packet_is_truncated(links: dict[str, bytes]) -> None:
    def continue_packet(some: list[bytearray]) -> None:
        del some[-1]
        # The last packet fills its last segment, so it goes on in the next page.
        page = some[-1]
        count = page[26]
        page += bytes(255 - page[26 + count])
        page[26 + count] = 255

    assert seconds(changed(links["opus"], continue_packet))[1]


@pytest.mark.parametrize("after", [b"TAG" + bytes(125), bytes(5000)], ids=["tag", "zeros"])
def test_bytes_after_the_last_page_are_ignored(links: dict[str, bytes], after: bytes) -> None:
    assert seconds(links["vorbis"] + after) == (2.0, False)


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_dump_that_begins_in_a_broadcast_is_whole(links: dict[str, bytes], name: str) -> None:
    length = {"vorbis": 2.0, "opus": 1.0}[name]
    assert seconds(later(links[name], 10**9)) == (length, False)


# Codecs.


def test_flac_in_ogg_is_read(links: dict[str, bytes]) -> None:
    assert seconds(links["flac"]) == (1.5, False)
    length, truncated = seconds(links["flac"][:-3000])
    assert 0.5 < length < 1.5
    assert truncated


@pytest.mark.parametrize(
    ("packet", "codec"), [(b"Speex   1.2", "Speex"), (b"\x80theora", "Theora")]
)
def test_other_codec_in_ogg_is_named(packet: bytes, codec: str) -> None:
    head = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(8) + b"\1\120"
    with pytest.raises(AudioError) as caught:
        decoded(head + packet.ljust(80, b"\0"))
    failure = caught.value.failure
    assert failure.code == "unsupported_media_type"
    assert f"{codec} in Ogg" in failure.message


@pytest.mark.skipif(not FIELD.is_dir(), reason=f"the recordings from the field are not at {FIELD}")
def test_flac_in_ogg_from_the_field_is_read() -> None:
    samples, stream = decoded((FIELD / "15-flac-in-ogg.oga").read_bytes())
    assert len(samples) > 2 * RATE
    assert not stream.truncated


# Extracts.


def test_large_extract_is_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.body.MEMORY_BYTES", 10)
    body = body_of(b"0123456789" * 100)
    body._directory = tmp_path
    try:
        for most in (5, 500):
            own = body.extract([(3, 4), (990, 3)], most)
            assert os.pread(own, 100, 0) == b"3456012"
            is_memory = "memfd" in os.readlink(f"/proc/self/fd/{own}")
            assert is_memory == (most == 5)
            os.close(own)
        assert list(tmp_path.iterdir()) == []
    finally:
        body.close()


def test_extract_without_space_is_reported(links: dict[str, bytes]) -> None:
    def fail(_parts: object, _most: int) -> int:
        raise OSError(28, "No space left on device")

    body = body_of(links["opus"] * 2)
    with pytest.raises(AudioError) as caught:
        AudioStream(body.fileno(), body.size, None, 60.0, extract=fail)
    body.close()
    assert caught.value.failure.code == "no_space"
    assert caught.value.failure.retry_after_seconds


def test_descriptors_of_extracts_are_closed(links: dict[str, bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    decoded(links["opus"] * 5)
    body = body_of(links["opus"] * 5)
    stream = AudioStream(body.fileno(), body.size, None, 60.0)
    stream.read()
    stream.close()
    stream.close()
    body.close()
    assert len(os.listdir("/proc/self/fd")) == before
