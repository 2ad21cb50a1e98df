"""The contract of app/protocols/base.py, tested with every protocol. Each protocol also has a test
file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fakes import RAW, frame
from forms import BOUNDARY, TRANSCRIPTIONS, request

from app.messages import Begin, BodyData, End, Send
from app.protocols.base import Protocol, ProtocolError
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site
from app.protocols.model_names import ModelNames
from app.protocols.native.protocol import NativeProtocol
from app.protocols.wyoming.events import Program
from app.protocols.wyoming.protocol import WyomingProtocol

PIECE = 65_536
BODY = b"x" * (16 * PIECE)
MAX_BODY = len(BODY) + PIECE


@dataclass(frozen=True)
class Sample:
    """A message that contains `BODY`, and bytes that cannot begin a message."""

    new: Callable[[], Protocol]
    head: bytes
    tail: bytes
    junk: bytes
    held_back: int = 0
    """Bytes that the parser may hold back, because they may be the beginning of the body's end."""


def framed() -> Sample:
    header = {**RAW, "connection": "keep-alive", "content-length": len(BODY) + 1}
    return Sample(lambda: NativeProtocol(MAX_BODY, lambda: "made"), frame(header), b"x", b"\0\0")


NAMES = ModelNames("tiny.en", frozenset({"tiny.en"}))


def http() -> Sample:
    site = Site(NAMES, 1_700_000_000, MAX_BODY)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    tail = f"\r\n--{BOUNDARY}--\r\n"
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        Content_Length=str(len(part) + len(BODY) + len(tail)),
    )
    return Sample(
        lambda: HttpProtocol(site, lambda: "made"),
        head + part.encode(),
        tail.encode(),
        b"\0 / HTTP/1.1\r\n\r\n",
        held_back=len(tail),
    )


def wyoming() -> Sample:
    program = Program("0.1.0", NAMES, ("en",), False)
    line = {
        "type": "audio-chunk",
        "data": {"rate": 16_000, "width": 2, "channels": 1},
        "payload_length": len(BODY),
    }
    return Sample(
        lambda: WyomingProtocol(program, MAX_BODY, lambda: "made"),
        json.dumps(line).encode() + b"\n",
        b'{"type": "audio-stop"}\n',
        b"ab\n",
    )


@pytest.fixture(params=[framed, http, wyoming], ids=lambda make: make.__name__)
def sample(request: pytest.FixtureRequest) -> Sample:
    made: Sample = request.param()
    return made


def test_accept_and_reject_are_errors_without_a_begin(sample: Sample) -> None:
    protocol = sample.new()
    for decide in (protocol.accept, protocol.reject):
        with pytest.raises(RuntimeError):
            decide()
    protocol.feed(sample.head)
    assert isinstance(protocol.next_event(), Begin)
    protocol.accept()
    for decide in (protocol.accept, protocol.reject):
        with pytest.raises(RuntimeError):
            decide()


@pytest.mark.parametrize("accepts", [True, False])
def test_body_is_held_back_until_the_decision(sample: Sample, accepts: bool) -> None:
    protocol = sample.new()
    protocol.feed(sample.head)
    assert isinstance(protocol.next_event(), Begin)
    protocol.feed(b"xyz")
    assert protocol.next_event() is None
    if accepts:
        protocol.accept()
        protocol.feed(BODY[3:])
        assert isinstance(protocol.next_event(), BodyData)
    else:
        protocol.reject()
        protocol.feed(BODY[3:])
        assert protocol.next_event() is None


def test_lost_stream_gives_no_more_events_or_exceptions(sample: Sample) -> None:
    protocol = sample.new()
    protocol.feed(sample.junk + sample.head)
    with pytest.raises(ProtocolError):
        protocol.next_event()
    protocol.abandon()
    for _ in range(3):
        event = protocol.next_event()
        assert event in (None, Send(b"", keep_alive=False))
        protocol.feed(sample.head)
    assert protocol.idle
    assert not protocol.reading_body


def test_idle_and_reading_body_follow_the_stream(sample: Sample) -> None:
    protocol = sample.new()
    states = [(protocol.idle, protocol.reading_body)]
    for piece in (sample.head[:1], sample.head[1:], None, BODY, sample.tail):
        if piece is None:
            protocol.accept()
        else:
            protocol.feed(piece)
            while protocol.next_event() is not None:
                pass
        states.append((protocol.idle, protocol.reading_body))
    assert states == [
        (True, False),
        (False, False),
        (False, False),
        (False, True),
        (False, True),
        (True, False),
    ]


def test_body_is_passed_on_without_being_collected(sample: Sample) -> None:
    protocol = sample.new()
    protocol.feed(sample.head)
    assert isinstance(protocol.next_event(), Begin)
    protocol.accept()
    given = 0
    for fed in range(PIECE, len(BODY) + 1, PIECE):
        protocol.feed(BODY[:PIECE])
        while (event := protocol.next_event()) is not None:
            assert isinstance(event, BodyData)
            assert len(event.data) <= PIECE + sample.held_back
            given += len(event.data)
        assert fed - sample.held_back <= given <= fed
    protocol.feed(sample.tail)
    events = list(iter(protocol.next_event, None))
    assert isinstance(events[-1], End)
