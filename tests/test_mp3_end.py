"""MP3 files that break off: by the length in the first frame, or by the last frame."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from fakes import RATE, body_of, encoded, tone

from app.audio.mpeg_frames import frame_length
from app.audio.sniff import inspect

SAMPLES = tone(4 * RATE) + np.random.default_rng(3).normal(0, 0.05, 4 * RATE).astype(np.float32)

ID3V1 = b"TAG" + bytes(125)


def ape(header: bool) -> bytes:
    """An APE tag of two items, with or without its header."""
    items = b"\x05\0\0\0\0\0\0\0Title\0hello" * 2
    length = len(items) + 32
    footer = b"APETAGEX" + struct.pack("<IIII", 2000, length, 2, header << 31) + bytes(8)
    return (footer if header else b"") + items + footer


def mp3(mode: str = "VARIABLE") -> bytes:
    return encoded(SAMPLES, format="MP3", bitrate_mode=mode)


def untagged(mode: str = "VARIABLE") -> bytes:
    """Without the frame that states the length."""
    data = mp3(mode)
    length = frame_length(data)
    assert length is not None
    return data[length:]


def with_vbri() -> bytes:
    """With Fraunhofer's tag in place of Xing's."""
    data = bytearray(mp3())
    length = frame_length(bytes(data)) or 0
    data[4:length] = bytes(length - 4)
    data[36:54] = b"VBRI" + struct.pack(">HHHII", 1, 0, 50, len(data), 100)
    return bytes(data)


FILES = {
    "variable": mp3,
    "constant": lambda: mp3("CONSTANT"),
    "without a tag": untagged,
    "constant without a tag": lambda: untagged("CONSTANT"),
    "VBRI": with_vbri,
    "joined": lambda: mp3() + mp3("CONSTANT"),
}
AFTER = {"nothing": b"", "ID3v1": ID3V1, "APE": ape(True), "APE and ID3v1": ape(False) + ID3V1}


def truncated(data: bytes) -> bool:
    body = body_of(data)
    try:
        found = inspect(body.fileno(), body.size)
        assert found is not None
        assert found.name == "MP3"
        return found.truncated
    finally:
        body.close()


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("name", FILES)
def test_whole_mp3_is_not_truncated(name: str, after: str) -> None:
    assert not truncated(FILES[name]() + AFTER[after])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_mp3_that_was_cut_is_truncated(name: str, share: float) -> None:
    data = FILES[name]()
    end = round(len(data) * share)
    # A file without a stated length shows it unless it is cut between two frames by chance.
    assert any(truncated(data[: end + more]) for more in (0, 7))


def test_mp3_cut_between_two_frames_is_truncated_by_its_stated_length() -> None:
    data = mp3("CONSTANT")
    at, count = 0, 0
    while count < 60:
        at, count = at + (frame_length(data[at : at + 4]) or 0), count + 1
    assert truncated(data[:at])


@pytest.mark.parametrize("junk", [bytes(3000), b"junk" * 500, b"\xff" * 100])
def test_junk_after_the_last_frame_is_no_frame(junk: bytes) -> None:
    assert not truncated(untagged() + junk)


def test_mp3_within_a_tag_alone_is_not_judged() -> None:
    assert not truncated(b"ID3\4\0\0\0\0\0\x64" + bytes(1000))
