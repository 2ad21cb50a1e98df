"""A chunked body in tiny pieces: the parser returns after a limited number of pieces, so that the
loop can serve other connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.messages import Begin, BodyData, End, Event, Failure, Query, Report, Send
from app.protocols.http.input import CHUNKS_AT_ONCE
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site
from app.protocols.model_names import ModelNames

NAMES = ModelNames("tiny.en-q8_0", frozenset({"tiny.en"}))
SITE = Site(NAMES, 1_700_000_000, 100_000)
CHUNKS = 10 * CHUNKS_AT_ONCE
AUDIO = b"1\r\nx\r\n" * CHUNKS
START = b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
END = b"\r\n--xyz--\r\n"


def head(method: str, target: str) -> bytes:
    lines = (
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Content-Type: multipart/form-data; boundary=xyz",
        "Transfer-Encoding: chunked",
    )
    return "\r\n".join((*lines, "\r\n")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def events(protocol: HttpProtocol) -> Iterator[Event]:
    while (event := protocol.next_event()) is not None:
        yield event


@pytest.fixture
def protocol() -> HttpProtocol:
    return HttpProtocol(SITE, lambda: "made")


def test_body_of_tiny_chunks_is_read_in_turns(protocol: HttpProtocol) -> None:
    protocol.feed(head("POST", "/inference"))
    assert isinstance(protocol.next_event(), Begin)
    protocol.accept()
    protocol.feed(chunk(START) + AUDIO + chunk(END) + b"0\r\n\r\n")
    *pieces, last = events(protocol)
    assert isinstance(last, End)
    assert all(isinstance(piece, BodyData) for piece in pieces)
    assert len(pieces) >= 10
    assert b"".join(bytes(piece.data) for piece in pieces if isinstance(piece, BodyData)) == (
        b"x" * CHUNKS
    )


def test_body_skipped_before_the_answer_is_read_in_turns(protocol: HttpProtocol) -> None:
    protocol.feed(head("GET", "/readyz") + AUDIO)
    first, *pauses = events(protocol)
    assert isinstance(first, Query)
    assert len(pauses) >= 9
    assert set(pauses) == {Send(b"")}
    protocol.feed(b"0\r\n\r\n")
    assert list(events(protocol)) == []
    assert b"200 OK" in protocol.encode(None, Report(True, "text/plain", b""))
    protocol.feed(head("GET", "/healthz") + b"0\r\n\r\n")
    (told,) = events(protocol)
    assert isinstance(told, Send)
    assert b"200 OK" in told.data


def test_body_skipped_after_the_answer_is_read_in_turns(protocol: HttpProtocol) -> None:
    protocol.feed(head("POST", "/inference"))
    assert isinstance(protocol.next_event(), Begin)
    protocol.reject()
    assert b"503" in protocol.encode("made", Failure("busy", "later"))
    protocol.feed(AUDIO + b"0\r\n\r\n")
    *pauses, last = events(protocol)
    assert len(pauses) >= 9
    assert set(pauses) == {Send(b"")}
    assert last == Send(b"", keep_alive=False)
