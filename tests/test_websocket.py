"""WebSocket without IO: the handshake, frames of friendly and hostile clients, sessions."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sockets import (
    BINARY,
    CLOSE,
    KEY,
    MASK,
    PING,
    PONG,
    TEXT,
    Message,
    Peer,
    accept_of,
    close,
    frame,
    messages,
    opening,
)
from streams import split

from app.live import Clear, Commit, Configure, LiveOptions, SpeechBegan
from app.messages import (
    BUSY,
    INTERNAL,
    SHUTTING_DOWN,
    TIMEOUT,
    Begin,
    End,
    Failure,
    RawFormat,
    Reply,
    Request,
    Send,
    Streamed,
    Upgrade,
)
from app.protocols.base import MAX_HELD_BYTES
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site, SocketRoute
from app.protocols.model_names import ModelNames
from app.protocols.websocket.dialogue import Action, Audio, EndStream, Leave, Say
from app.protocols.websocket.frames import MAX_FRAGMENTS, MAX_MESSAGE_BYTES
from app.protocols.websocket.handshake import Opening
from app.protocols.websocket.session import PIECE_BYTES, WebSocketSession

NAMES = ModelNames("tiny.en", frozenset({"tiny.en"}))
STREAMED = Streamed("en", 0, 0, 1.0, 0.1, "tiny.en", truncated=False)


@dataclass
class Echo:
    """A dialogue that answers a text with the same text, and takes binary messages as audio. Some
    texts are commands."""

    texts: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def greeting(self) -> Sequence[Action]:
        return [Say("hello")]

    def on_text(self, text: str) -> Sequence[Action]:
        self.texts.append(text)
        commands: dict[str, Action] = {
            "commit": Commit(),
            "end": EndStream(),
            "leave": Leave(1008, "go"),
            "configure": Configure(LiveOptions()),
        }
        return [commands.get(text) or Say(text)]

    def on_binary(self, data: bytes, ended: bool) -> Sequence[Action]:
        return [Audio(data), *([Say("got")] if ended else [])]

    def request(self, request_id: str) -> Request:
        raw = RawFormat("s16", 16_000, 1, "little")
        return Request(request_id, None, raw, reply="segments", keep_alive=True, live=LiveOptions())

    def on_reply(self, reply: Reply) -> Sequence[Say | Leave]:
        self.replies.append(reply)
        return [Say(type(reply).__name__)]


def echo(accepts: bool | None = True) -> Peer:
    peer = Peer(WebSocketSession(Echo(), lambda: "made", "secret"), accepts)
    assert peer.take() == [Message(TEXT, b"hello")]
    return peer


# The handshake.


def site(**more: Any) -> Site:
    route = SocketRoute(
        lambda opening: WebSocketSession(Echo(), lambda: "made", opening.token),
        frozenset({"realtime"}),
    )
    served = NAMES
    return Site(served, 0, 1000, sockets={"/v1/realtime": route}, **more)


def knock(request: bytes, where: Site | None = None) -> tuple[HttpProtocol, Any]:
    protocol = HttpProtocol(where or site(), lambda: "made")
    protocol.feed(request)
    return protocol, protocol.next_event()


def refused(request: bytes, where: Site | None = None) -> bytes:
    """The answer to a request that gets no WebSocket."""
    _, event = knock(request, where)
    assert isinstance(event, Send)
    return event.data


def test_handshake_of_the_rfc_is_accepted() -> None:
    protocol, event = knock(opening())
    assert event == Upgrade(None)
    successor = protocol.upgrade()
    head = successor.response.decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert accept_of(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_of(KEY) in head
    assert "sec-websocket-protocol" not in head.lower()
    assert "extensions" not in head.lower()
    assert successor.unread == b""


def test_bytes_after_the_handshake_belong_to_the_session() -> None:
    protocol, _ = knock(opening() + frame(TEXT, b"early"))
    successor = protocol.upgrade()
    assert successor.unread == frame(TEXT, b"early")


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ("realtime, openai-insecure-api-key.KEY", "realtime"),
        ("openai-insecure-api-key.KEY, realtime, openai-beta.realtime-v1", "realtime"),
        ("openai-insecure-api-key.KEY", None),
        ("chat", None),
        ("vosk", None),
    ],
)
def test_answer_selects_only_an_offered_subprotocol(offered: str, selected: str | None) -> None:
    protocol, _ = knock(opening(Sec_WebSocket_Protocol=offered))
    head = protocol.upgrade().response.decode().lower()
    assert ("sec-websocket-protocol" in head) == (selected is not None)
    if selected:
        assert f"sec-websocket-protocol: {selected}\r\n" in head
    assert "key" not in head.replace("realtime", "")


def base64url(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("headers", "target", "token"),
    [
        ({}, "/v1/realtime", None),
        ({"Authorization": "Bearer abc"}, "/v1/realtime", "abc"),
        ({"Authorization": "bearer  abc "}, "/v1/realtime", "abc"),
        (
            {"Sec_WebSocket_Protocol": "realtime,openai-insecure-api-key.a.b-c"},
            "/v1/realtime",
            "a.b-c",
        ),
        (
            {"Sec_WebSocket_Protocol": f"realtime, node-whisper-token.{base64url('a/b=,c?')}"},
            "/v1/realtime",
            "a/b=,c?",
        ),
        ({"Sec_WebSocket_Protocol": "node-whisper-token.!!"}, "/v1/realtime", ""),
        ({"Sec_WebSocket_Protocol": "node-whisper-token._w"}, "/v1/realtime", ""),
        ({}, "/v1/realtime?intent=transcription&token=a%2Fb", "a/b"),
        ({"Authorization": "Bearer abc"}, "/v1/realtime?token=other", "abc"),
    ],
)
def test_token_comes_from_header_subprotocol_or_address(
    headers: dict[str, str], target: str, token: str | None
) -> None:
    _, event = knock(opening(target, **headers))
    assert event == Upgrade(token)
    assert token is None or token == "" or token not in repr(event)


def test_opening_does_not_show_its_token() -> None:
    shown: list[Opening] = []
    route = SocketRoute(lambda one: shown.append(one) or WebSocketSession(Echo(), str, None))  # type: ignore[func-returns-value]
    served = NAMES
    protocol, _ = knock(
        opening("/?token=geheim&x=1", Sec_WebSocket_Protocol="openai-insecure-api-key.geheim"),
        Site(served, 0, 1000, sockets={"/": route}),
    )
    protocol.upgrade()
    assert "geheim" not in repr(shown)
    assert shown[0].query == {"x": "1"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (opening(Sec_WebSocket_Version="8"), 426),
        (opening(Sec_WebSocket_Version=None), 426),
        (opening(Sec_WebSocket_Key=None), 400),
        (opening(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (opening(Sec_WebSocket_Key="not base64 at all!!!!"), 400),
        (opening(Connection="keep-alive"), 400),
        (opening().replace(b"GET", b"POST", 1), 400),
        # A request of HTTP/1.0 cannot upgrade (RFC 9110, section 7.8).
        (opening().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 426),
        (opening("/nothing"), 404),
        (opening("/v1/models"), 404),
        (opening(Host="rebound.example"), 403),
        (opening(Origin="https://elsewhere.example"), 403),
        (opening(Origin="null"), 403),
        (opening(Upgrade=None), 426),
    ],
)
def test_invalid_handshake_gets_an_answer_of_http(request_: bytes, status: int) -> None:
    answer = refused(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    if status == 426:
        assert b"upgrade: websocket" in answer.lower() or b"sec-websocket-version: 13" in (
            answer.lower()
        )


def test_handshake_with_a_body_is_refused() -> None:
    from app.protocols.base import ProtocolError

    protocol = HttpProtocol(site(), lambda: "made")
    protocol.feed(opening(Content_Length="5"))
    with pytest.raises(ProtocolError):
        protocol.next_event()


def test_own_page_and_allowed_origins_may_open() -> None:
    own = opening(Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080")
    assert isinstance(knock(own)[1], Upgrade)
    other = opening(Origin="https://app.example")
    assert isinstance(knock(other, site(origins=frozenset({"https://app.example"})))[1], Upgrade)


def test_refused_upgrade_leaves_http_usable() -> None:
    protocol, event = knock(opening())
    assert isinstance(event, Upgrade)
    answer = protocol.encode(None, Failure(BUSY, "later", 2.5))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 3" in answer.lower()
    protocol.feed(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    event = protocol.next_event()
    assert isinstance(event, Send)
    assert event.data.startswith(b"HTTP/1.1 200 ")


def test_port_of_sockets_has_nothing_else() -> None:
    route = SocketRoute(lambda _: WebSocketSession(Echo(), lambda: "made", None))
    alone = Site(NAMES, 0, 0, sockets={"*": route})
    assert isinstance(knock(opening("/any/path"), alone)[1], Upgrade)
    for path in (b"/", b"/metrics", b"/v1/models", b"/status"):
        answer = refused(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path, alone)
        assert answer.startswith(b"HTTP/1.1 426 ")


# Frames.


def test_message_in_fragments_with_a_ping_between_is_one_message() -> None:
    peer = echo()
    peer.feed(
        frame(TEXT, "é".encode()[:1], fin=False),
        frame(PING, b"there?"),
        frame(0, "é".encode()[1:] + b"!"),
    )
    assert peer.take() == [Message(PONG, b"there?"), Message(TEXT, "é!".encode())]


def test_ping_is_answered_in_every_state() -> None:
    peer = echo()
    for before in (b"", frame(BINARY, bytes(2))):
        peer.feed(before + frame(PING, bytes(125)))
        assert peer.take()[-1] == Message(PONG, bytes(125))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"x", reserved=4), 1002),
        (frame(TEXT, b"x", reserved=1), 1002),
        (frame(3, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(0, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, struct.pack("!H", 999)), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (bytes([0x81, 0x80 | 126]) + struct.pack("!H", 5) + bytes(4), 1002),
        (frame(BINARY, b"", length=1 << 63), 1002),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, "é".encode()[:1]), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"x" * (MAX_MESSAGE_BYTES + 1)), 1009),
        (frame(BINARY, bytes(MAX_MESSAGE_BYTES + 1)), 1009),
        (frame(TEXT, "é".encode() * (MAX_MESSAGE_BYTES // 2 + 1)), 1009),
        (frame(TEXT, b"x", fin=False) + frame(0, b"x" * MAX_MESSAGE_BYTES, fin=False), 1009),
        (frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * MAX_FRAGMENTS, 1009),
    ],
)
def test_hostile_frames_close_with_their_code(data: bytes, code: int) -> None:
    peer = echo().feed(data)
    assert peer.ended
    assert peer.lost is not None
    *before, last = peer.take()
    assert last.code == code
    # Pieces of a long binary message are audio, which ends here.
    assert [one.opcode for one in before] == []
    assert peer.session.next_event() is None
    assert peer.session.idle


def test_oversized_message_is_noticed_before_its_end() -> None:
    """A frame may declare any length; the node neither waits for it nor keeps it."""
    peer = echo()
    head = frame(TEXT, b"", length=1 << 40)
    fed = 0
    peer.feed(head)
    while not peer.ended:
        peer.feed(bytes(mark ^ mask for mark, mask in zip(b"aaaa", MASK, strict=True)) * 4096)
        fed += 16_384
        assert fed <= MAX_MESSAGE_BYTES + 32_768
    assert peer.take()[-1].code == 1009


def test_message_of_the_largest_size_is_taken() -> None:
    peer = echo().feed(frame(TEXT, b"x" * MAX_MESSAGE_BYTES))
    (message,) = peer.take()
    assert len(message.data) == MAX_MESSAGE_BYTES


def test_many_frames_in_one_read_do_not_take_one_long_turn() -> None:
    session = WebSocketSession(Echo(), lambda: "made", None)
    assert session.next_event() is not None
    session.feed(frame(PONG) * 10_000)
    turns = 0
    while (event := session.next_event()) is not None:
        assert event == Send(b"")
        turns += 1
    assert turns > 100


STORY = (
    frame(TEXT, b"one")
    + frame(PING, b"p")
    + frame(BINARY, bytes(range(64)), fin=False)
    + frame(0, bytes(10))
    + frame(TEXT, "zwei ü".encode())
    + frame(BINARY, b"")
    + close(1000)
)


@given(st.lists(st.integers(0, len(STORY)), max_size=20))
def test_any_split_gives_the_same_story(cuts: list[int]) -> None:
    def told(pieces: list[bytes]) -> Any:
        peer = echo().feed(*pieces)
        return peer.kinds, peer.audio, peer.take(), peer.ended

    pieces = list(split(STORY, cuts))
    assert b"".join(pieces) == STORY
    assert told(pieces) == told([STORY])


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=12))
def test_random_bytes_end_in_a_close_frame_or_wait(pieces: list[bytes]) -> None:
    peer = echo().feed(*pieces)
    found = peer.take()
    assert all(one.opcode in (TEXT, PONG, CLOSE) for one in found)
    assert peer.ended == any(one.opcode == CLOSE for one in found)


FRAMES = st.builds(
    frame,
    st.sampled_from([0, TEXT, BINARY, PING, PONG, CLOSE, 3, 12]),
    st.binary(max_size=200),
    fin=st.booleans(),
    mask=st.sampled_from([b"abcd", bytes(4), None]),
    reserved=st.sampled_from([0, 0, 0, 4]),
)


@settings(max_examples=300)
@given(st.lists(FRAMES, max_size=10), st.lists(st.integers(0, 2000), max_size=8))
def test_frames_in_any_order_give_the_same_story_in_any_split(
    frames: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(frames)
    whole, parts = echo().feed(data), echo().feed(*split(data, cuts))
    assert whole.take() == parts.take()
    assert (whole.kinds, whole.audio, whole.ended, whole.lost) == (
        parts.kinds,
        parts.audio,
        parts.ended,
        parts.lost,
    )


# Sessions.


def test_first_audio_begins_a_stream_with_the_token() -> None:
    peer = echo().feed(frame(BINARY, b"abcd"))
    (begin,) = peer.events
    assert isinstance(begin, Begin)
    assert begin.request.token == "secret"
    assert begin.request.id == "made"
    assert peer.audio == b"abcd"
    assert peer.session.reading_body
    assert not peer.session.idle


def test_nothing_passes_while_a_stream_is_undecided() -> None:
    peer = echo(accepts=None).feed(frame(BINARY, b"ab") + frame(TEXT, b"later"))
    assert peer.kinds == ["Begin"]
    assert peer.take() == []
    peer.decide(accept=True)
    assert peer.audio == b"ab"
    assert [one.data for one in peer.take()] == [b"got", b"later"]


def test_rejected_stream_is_dropped_and_the_next_audio_begins_another() -> None:
    peer = echo(accepts=False).feed(frame(BINARY, b"ab"))
    assert peer.audio == b""
    peer.reply(Failure(INTERNAL, "no"))
    assert peer.session.idle
    peer.accepts = True
    peer.feed(frame(BINARY, b"cd"))
    assert peer.kinds == ["Begin", "Begin"]
    assert peer.audio == b"cd"


def test_long_audio_comes_in_pieces() -> None:
    session = WebSocketSession(Echo(), lambda: "made", None)
    session.feed(frame(BINARY, bytes(100_000)))
    sizes = []
    while (event := session.next_event()) is not None:
        if isinstance(event, Begin):
            session.accept()
        elif not isinstance(event, Send):
            sizes.append(len(event.data))  # type: ignore[union-attr]
    assert sum(sizes) == 100_000
    assert max(sizes) <= PIECE_BYTES


def test_events_of_live_audio_need_a_stream() -> None:
    peer = echo().feed(frame(TEXT, b"commit"), frame(TEXT, b"configure"), frame(TEXT, b"end"))
    assert peer.kinds == []
    peer.feed(frame(BINARY, b"ab"), frame(TEXT, b"commit"), frame(TEXT, b"configure"))
    assert peer.kinds == ["Begin", "Commit", "Configure"]


def test_messages_wait_while_a_stream_ends() -> None:
    peer = echo().feed(frame(BINARY, b"ab") + frame(TEXT, b"end") + frame(TEXT, b"after"))
    assert peer.kinds == ["Begin", "End"]
    assert [one.data for one in peer.take()] == [b"got"]
    peer.feed(frame(BINARY, bytes(MAX_HELD_BYTES)))
    assert peer.session.full
    peer.reply(STREAMED)
    assert [one.data for one in peer.take()] == [b"Streamed", b"after", b"got"]
    assert not peer.session.full
    assert peer.kinds == ["Begin", "End", "Begin"]


def test_client_that_closes_ends_its_stream_without_the_open_utterance() -> None:
    peer = echo().feed(frame(BINARY, b"ab") + close(1000) + frame(TEXT, b"never"))
    assert peer.kinds == ["Begin", "Clear", "End"]
    assert isinstance(peer.events[1], Clear)
    assert isinstance(peer.events[2], End)
    assert peer.ended
    assert peer.take()[-1].code == 1000
    peer.reply(SpeechBegan(0.0), STREAMED)
    assert peer.take() == []


@pytest.mark.parametrize(("code", "answer"), [(None, 1000), (1001, 1001), (4321, 4321)])
def test_close_frame_is_answered(code: int | None, answer: int) -> None:
    peer = echo().feed(close(code))
    assert [one.code for one in peer.take()] == [answer]
    assert peer.ended
    assert peer.events == []


def test_dialogue_can_leave() -> None:
    peer = echo().feed(frame(BINARY, b"ab"), frame(TEXT, b"leave"))
    assert peer.ended
    last = peer.take()[-1]
    assert (last.code, last.data[2:]) == (1008, b"go")


@pytest.mark.parametrize(
    ("failure", "code"),
    [(TIMEOUT, 1001), (SHUTTING_DOWN, 1001), (BUSY, 1013)],
)
def test_failures_of_the_node_close_with_their_code(failure: str, code: int) -> None:
    peer = echo().feed(frame(BINARY, b"ab"))
    peer.reply(Failure(failure, "because"))
    *_, said, last = peer.take()
    assert said.data == b"Failure"
    assert (last.code, last.data[2:]) == (code, b"because")
    assert peer.ended


def test_other_failures_keep_the_session_open() -> None:
    peer = echo().feed(frame(BINARY, b"ab"))
    peer.reply(Failure(INTERNAL, "a bug"))
    assert not peer.ended
    assert peer.session.idle


def test_stream_that_the_node_ends_closes_the_session() -> None:
    peer = echo().feed(frame(BINARY, b"ab"))
    peer.reply(Streamed("en", 0, 0, 1.0, 0.1, "tiny.en", truncated=True))
    assert peer.take()[-1].code == 1001
    assert peer.ended


def test_farewell_is_said_once() -> None:
    peer = echo()
    (last,) = messages(peer.session.farewell())
    assert last.code == 1001
    assert peer.session.farewell() == b""
    peer.feed(frame(TEXT, b"late"))
    assert peer.take() == []
    assert peer.ended


def test_undecodable_text_is_replaced() -> None:
    """JSON may hold half a surrogate pair."""
    peer = echo()
    peer.session._do([Say("a\ud800b")])
    peer.pump()
    assert [one.data for one in peer.take()] == [b"a?b"]
