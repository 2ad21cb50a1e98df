"""The native framing without IO: bytes in, events out, independent of the split."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from fakes import RAW, frame, message, transcript_of
from hypothesis import given
from hypothesis import strategies as st
from streams import Seen, see_body, split

from app.messages import (
    Accepted,
    Begin,
    BodyData,
    End,
    Event,
    Failure,
    Rejected,
    Segment,
    Word,
)
from app.protocols.base import ProtocolError
from app.protocols.native.protocol import NativeProtocol

MAX_BODY = 1000


def new_protocol() -> NativeProtocol:
    return NativeProtocol(MAX_BODY, lambda: "made")


def see(seen: Seen, event: Event) -> None:
    """Record an event; join the pieces of one body."""
    if isinstance(event, BodyData):
        see_body(seen, event.data)
    elif isinstance(event, Begin):
        seen.append(("begin", event.request.id, event.request.content_length))
    elif isinstance(event, Rejected):
        seen.append(("refused", event.id, event.failure.code, event.reply, event.keep_alive))
    else:
        assert isinstance(event, End)
        seen.append(("end",))


def drive(pieces: Iterable[bytes], accept: Any = lambda request_id: True) -> Seen:
    """Feed `pieces` to a protocol; return its events. `accept` decides by the request's id."""
    protocol = new_protocol()
    seen: Seen = []
    for piece in pieces:
        protocol.feed(piece)
        try:
            while (event := protocol.next_event()) is not None:
                see(seen, event)
                if isinstance(event, Begin):
                    assert protocol.next_event() is None, "nothing may come before the decision"
                    protocol.accept() if accept(event.request.id) else protocol.reject()
        except ProtocolError as error:
            seen.append(("lost", error.failure.code))
    return seen


def keep(body: bytes, **fields: Any) -> bytes:
    return message(body, connection="keep-alive", **fields)


VECTORS: dict[str, tuple[bytes, Seen]] = {
    "one request": (
        message(b"abc", id="r"),
        [("begin", "r", 3), ("body", b"abc"), ("end",)],
    ),
    "an id of our own": (message(b"a"), [("begin", "made", 1), ("body", b"a"), ("end",)]),
    "an empty body": (message(b"", id="r"), [("begin", "r", 0), ("end",)]),
    "the largest body": (
        message(b"x" * MAX_BODY, id="r"),
        [("begin", "r", MAX_BODY), ("body", b"x" * MAX_BODY), ("end",)],
    ),
    "two, pipelined": (
        keep(b"abc", id="1") + keep(b"de", id="2"),
        [
            ("begin", "1", 3),
            ("body", b"abc"),
            ("end",),
            ("begin", "2", 2),
            ("body", b"de"),
            ("end",),
        ],
    ),
    "nothing is read after the last": (
        keep(b"a", id="1") + message(b"b", id="2") + message(b"c", id="3"),
        [("begin", "1", 1), ("body", b"a"), ("end",), ("begin", "2", 1), ("body", b"b"), ("end",)],
    ),
    "rejected, its body skipped": (
        keep(b"abc", id="no") + message(b"d", id="r"),
        [("begin", "no", 3), ("begin", "r", 1), ("body", b"d"), ("end",)],
    ),
    "rejected, and no further": (
        message(b"abc", id="no") + message(b"d", id="r"),
        [("begin", "no", 3)],
    ),
    "rejected with an empty body": (
        keep(b"", id="no") + message(b"", id="r"),
        [("begin", "no", 0), ("begin", "r", 0), ("end",)],
    ),
    "refused, its body skipped": (
        keep(b"abc", id="x", task="sing") + message(b"d", id="r"),
        [
            ("refused", "x", "bad_field", "transcript", True),
            ("begin", "r", 1),
            ("body", b"d"),
            ("end",),
        ],
    ),
    "refused, and no further": (
        message(b"abc", id="x", reply="none", task="sing") + message(b"d", id="r"),
        [("refused", "x", "bad_field", "none", False)],
    ),
    "space before the brace": (
        frame(b" \t\r\n" + json.dumps({**RAW, "id": "r", "content-length": 1}).encode(), b"a"),
        [("begin", "r", 1), ("body", b"a"), ("end",)],
    ),
    "nothing but space": (frame(b"  \n ") + message(b"d"), [("lost", "bad_header")]),
    "TLS on the plain port": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 20,
        [("lost", "bad_header")],
    ),
    "HTTP on the native port": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", [("lost", "bad_header")]),
    "a header of no length": (b"\0\0", [("lost", "bad_header")]),
    "not JSON": (frame(b"{'a'}") + message(b"d"), [("lost", "bad_header")]),
    "lost after a good one": (
        keep(b"abc", id="1") + frame(b"[]") + message(b"d"),
        [("begin", "1", 3), ("body", b"abc"), ("end",), ("lost", "bad_header")],
    ),
    "too large": (message(b"x" * (MAX_BODY + 1)), [("lost", "too_large")]),
    "the longest header": (
        frame({**RAW, "id": "r", "content-length": 1, "x": "y" * 65_000}, b"a"),
        [("begin", "r", 1), ("body", b"a"), ("end",)],
    ),
}


def accept(request_id: str) -> bool:
    return request_id != "no"


@pytest.mark.parametrize("name", VECTORS)
def test_vector_fed_at_once(name: str) -> None:
    stream, events = VECTORS[name]
    assert drive([stream], accept) == events


@pytest.mark.parametrize("name", VECTORS)
def test_vector_fed_byte_by_byte(name: str) -> None:
    stream, events = VECTORS[name]
    assert drive((stream[at : at + 1] for at in range(len(stream))), accept) == events


@pytest.mark.parametrize("name", VECTORS)
def test_vector_with_trailing_bytes(name: str) -> None:
    """After a closing message the bytes are ignored. Otherwise they begin the next message, and
    three bytes of it are not enough for an event."""
    stream, events = VECTORS[name]
    assert drive([stream + b"\xff\xff{"], accept) == events
    assert drive([stream, b"\xff\xff{"], accept) == events


def test_invalid_header_is_rejected_at_its_first_byte() -> None:
    """Waiting for the apparent length would take forever."""
    assert drive([b"\xff\xff", b" \n", b"\t", b"["]) == [("lost", "bad_header")]
    assert drive([b"\xff\xff", b" \n", b"\t", b"{", b"["]) == []


@pytest.mark.parametrize("name", VECTORS)
def test_truncated_vector_gives_its_first_events(name: str) -> None:
    stream, events = VECTORS[name]
    for end in {0, 1, 2, 3, len(stream) // 2, len(stream) - 1}:
        seen = drive([stream[:end]], accept)
        if seen and seen[-1][0] == "body" and len(seen) <= len(events):
            assert events[len(seen) - 1][1].startswith(seen[-1][1])
            seen.pop()
        assert seen == events[: len(seen)]


# Random streams, generated together with the expected events.


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, Seen, set[str]]:
    """A stream of valid messages, its events, and the ids to reject."""
    stream, events, rejected = b"", [], set()
    over = False
    for number in range(draw(st.integers(1, 5))):
        body = draw(st.binary(max_size=60))
        kept = draw(st.booleans())
        kind = draw(st.sampled_from(["accept", "reject", "refuse"]))
        name = f"r{number}"
        fields = {"id": name, "connection": "keep-alive" if kept else "close"}
        if kind == "refuse":
            fields["task"] = "sing"
        stream += message(body, **fields)
        if over:
            continue
        if kind == "refuse":
            events.append(("refused", name, "bad_field", "transcript", kept))
        else:
            events.append(("begin", name, len(body)))
        if kind == "reject":
            rejected.add(name)
        if kind == "accept":
            events += [("body", body)] if body else []
            events.append(("end",))
        over = not kept
    return stream, events, rejected


CUTS = st.lists(st.integers(0, 1 << 16), max_size=20)


@given(streams(), CUTS)
def test_valid_stream_gives_the_same_events_in_any_split(
    case: tuple[bytes, Seen, set[str]], cuts: list[int]
) -> None:
    stream, events, rejected = case
    assert drive(split(stream, cuts), lambda name: name not in rejected) == events


@given(streams(), CUTS, st.integers(0, 1 << 16), st.binary(min_size=1, max_size=3))
def test_damaged_stream_gives_the_same_events_in_any_split(
    case: tuple[bytes, Seen, set[str]], cuts: list[int], at: int, fault: bytes
) -> None:
    stream, _, rejected = case
    at %= len(stream)
    broken = stream[:at] + fault + stream[at + len(fault) :]

    def decide(name: str) -> bool:
        return name not in rejected

    assert drive(split(broken, cuts), decide) == drive([broken], decide)


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_random_bytes_give_events_or_one_exception(pieces: list[bytes], accepts: bool) -> None:
    seen = drive(pieces, lambda _: accepts)
    lost = [index for index, entry in enumerate(seen) if entry[0] == "lost"]
    assert lost in ([], [len(seen) - 1]), "nothing may come after the loss"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["little", "s16", "audio/pcm", "en", "keep-alive", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
FIELD = st.sampled_from(
    [
        *RAW,
        "content-length",
        "id",
        "connection",
        "reply",
        "language",
        "task",
        "prompt",
        "word-timestamps",
        "unknown",
    ]
)


@given(st.dictionaries(FIELD, JSON), st.booleans(), st.binary(max_size=50))
def test_random_header_gives_events_or_one_exception(
    fields: dict[str, Any], on_top_of_a_good_one: bool, body: bytes
) -> None:
    header = {**RAW, "content-length": len(body), **fields} if on_top_of_a_good_one else fields
    seen = drive([frame(header, body)])
    assert len(seen) >= 1
    assert [entry[0] for entry in seen[1:]] in ([], ["body"], ["body", "end"], ["end"], ["lost"])


# Replies.


def decode(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    (length,) = struct.unpack("!H", data[:2])
    header = json.loads(data[2 : 2 + length])
    body = data[2 + length :]
    assert len(body) == header["content-length"]
    return header, json.loads(body.decode("utf-8"))


def test_encode_writes_every_reply() -> None:
    protocol = new_protocol()
    word = Word(0.1234, 0.5678, "Größe", 0.98765)
    segment = Segment(0.0, 1.23456, "Größe 日本", 0.98765, (word,))
    transcript = transcript_of(
        "Größe 日本",
        language="de",
        segments=(segment,),
        audio_seconds=2.34567,
        queue_seconds=0.1,
        processing_seconds=0.2,
        truncated=True,
        encoder_context=1500,
        passes=2,
    )
    word_fields = {"start": 0.123, "end": 0.568, "text": "Größe", "confidence": 0.988}
    segment_fields = {
        "start": 0.0,
        "end": 1.235,
        "text": "Größe 日本",
        "confidence": 0.988,
        "words": [word_fields],
    }
    header, reply = decode(protocol.encode("r", transcript))
    assert header.keys() == {"byteorder", "content-type", "content-encoding", "content-length"}
    assert (header["content-type"], header["content-encoding"]) == ("application/json", "utf-8")
    assert reply == {
        "id": "r",
        "status": "ok",
        "text": "Größe 日本",
        "language": "de",
        "language_probability": None,
        "segments": [segment_fields],
        "audio_seconds": 2.346,
        "queue_seconds": 0.1,
        "processing_seconds": 0.2,
        "model": "tiny.en-q8_0",
        "truncated": True,
        "encoder_context": 1500,
        "passes": 2,
    }
    assert decode(protocol.encode("r", segment))[1] == {
        "id": "r",
        "status": "segment",
        "segment": segment_fields,
    }
    assert "words" not in decode(protocol.encode("r", Segment(0, 1, "x", 1)))[1]["segment"]
    assert decode(protocol.encode("r", Accepted()))[1] == {"id": "r", "status": "accepted"}
    assert decode(protocol.encode(None, Failure("busy", "later", 1.26)))[1] == {
        "id": None,
        "status": "error",
        "error": {"code": "busy", "message": "later", "retry_after_seconds": 1.3},
    }
    assert decode(protocol.encode("r", Failure("internal", "no")))[1]["error"] == {
        "code": "internal",
        "message": "no",
    }
