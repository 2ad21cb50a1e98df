"""Frames of live audio without IO: any split of the stream gives the same body."""

from __future__ import annotations

import json
import struct

import pytest
from fakes import RAW, frame, message
from hypothesis import given
from hypothesis import strategies as st
from live_worker import END, framed, live_header
from streams import Seen, see_body, split

from app.live import LiveOptions, Partial
from app.messages import Begin, BodyData, End, Rejected
from app.protocols.base import ProtocolError
from app.protocols.native.frames import CountedBody, FramedBody
from app.protocols.native.header import parse_header
from app.protocols.native.protocol import NativeProtocol


def drive(pieces: list[bytes], accept: bool = True) -> Seen:
    """The events of a stream, with the pieces of one body joined."""
    protocol = NativeProtocol(1000, lambda: "made")
    seen: Seen = []
    for piece in pieces:
        protocol.feed(piece)
        try:
            while (event := protocol.next_event()) is not None:
                if isinstance(event, BodyData):
                    see_body(seen, event.data)
                elif isinstance(event, Begin):
                    seen.append(("begin", event.request.id, event.request.live is not None))
                    protocol.accept() if accept else protocol.reject()
                elif isinstance(event, Rejected):
                    seen.append(("rejected", event.id, event.failure.code))
                else:
                    assert isinstance(event, End)
                    seen.append(("end",))
        except ProtocolError as error:
            seen.append(("lost", error.failure.code, protocol.reading_body))
    return seen


KEPT = {"connection": "keep-alive"}
AUDIO = bytes(range(256)) * 3
TWO = live_header(id="1", **KEPT) + framed(AUDIO, 5) + END + message(b"ab", id="2", **KEPT)


@given(
    st.lists(st.binary(min_size=1, max_size=70), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=30),
)
def test_any_split_of_the_bytes_gives_the_same_events(frames: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(struct.pack("!H", len(data)) + data for data in frames)
    stream = live_header(id="1", **KEPT) + sent + END + message(b"ab", id="2")
    body = b"".join(frames)
    first = [("begin", "1", True), *([("body", body)] if body else []), ("end",)]
    second = [("begin", "2", False), ("body", b"ab"), ("end",)]
    assert drive(split(stream, cuts)) == first + second


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_rejected_audio_is_skipped_to_its_end(cuts: list[int]) -> None:
    assert drive(split(TWO, cuts), accept=False) == [("begin", "1", True), ("begin", "2", False)]
    refused = live_header(id="1", channel_mode="split", **KEPT) + framed(AUDIO, 5) + END
    seen = drive(split(refused + message(b"ab", id="2"), cuts))
    assert seen[0] == ("rejected", "1", "bad_field")
    assert seen[1] == ("begin", "2", False)


def test_split_at_every_byte_gives_the_same_events() -> None:
    whole = drive([TWO])
    assert whole == drive([bytes([byte]) for byte in TWO])
    for cut in range(len(TWO)):
        assert drive([TWO[:cut], TWO[cut:]]) == whole


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_reserved_length_loses_the_position(cut: int) -> None:
    head, tail = live_header(id="1", **KEPT) + framed(b"abc"), b"\xff\xff" + AUDIO + END
    seen = drive([head + tail[:cut], tail[cut:], message(b"ab")])
    assert seen == [("begin", "1", True), ("body", b"abc"), ("lost", "bad_header", True)]


def test_longest_frame_is_65534_bytes() -> None:
    audio = b"x" * 65_534
    assert drive([live_header(id="1") + framed(audio, 65_534) + END]) == [
        ("begin", "1", True),
        ("body", audio),
        ("end",),
    ]


def test_nothing_is_read_after_the_end_of_a_last_stream() -> None:
    assert drive([live_header(id="1") + END + message(b"ab")]) == [("begin", "1", True), ("end",)]


def test_header_of_live_audio_with_content_length_is_lost() -> None:
    assert drive([frame({**RAW, "live": True, "content-length": 3}) + b"abc"]) == [
        ("lost", "bad_field", False)
    ]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_counted_body_takes_its_bytes_and_leaves_the_rest(body: bytes, rest: bytes) -> None:
    reader = CountedBody(len(body))
    piece, left = reader.take(memoryview(body + rest))
    assert (bytes(piece), bytes(left), reader.ended) == (body, rest, True)


def test_framed_body_copies_nothing() -> None:
    data = memoryview(framed(AUDIO, len(AUDIO)))
    piece, _ = FramedBody().take(data)
    assert piece.obj is data.obj


def test_partials_are_segments_with_the_open_utterance() -> None:
    protocol = NativeProtocol(100, lambda: "made")
    protocol.feed(live_header(id="1", reply="partials"))
    event = protocol.next_event()
    assert isinstance(event, Begin)
    assert (event.request.reply, event.request.live) == ("segments", LiveOptions(partials=True))
    data = protocol.encode("1", Partial("and so", " my"))
    (length,) = struct.unpack_from("!H", data)
    assert json.loads(data[2 + length :]) == {
        "id": "1",
        "status": "partial",
        "stable": "and so",
        "rest": " my",
    }


def test_partials_of_a_file_are_an_error() -> None:
    parsed = parse_header(
        json.dumps({**RAW, "content-length": 2, "reply": "partials"}).encode(), 100, lambda: "x"
    )
    assert parsed.failure is not None
    assert parsed.failure.code == "bad_field"
    assert "live" in parsed.failure.message
