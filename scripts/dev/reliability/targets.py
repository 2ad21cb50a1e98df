"""The fuzzed functions: each takes bytes and must neither fail nor contradict itself.

A target raises an exception if the code under test breaks its contract, and ignores exceptions that
the contract allows. The tests run the same targets over a fixed set of inputs, so this module
imports no package that only the fuzzer needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import cast, get_args

import numpy as np

from app.audio.media.media_file import MediaFile
from app.audio.media.opener import MediaOpener
from app.audio.media.process import Child
from app.audio.media.slots import Slots
from app.audio.media.wire import Resume
from app.audio.raw_format import ONE_CHANNEL
from app.audio.source import OpenMedia
from app.audio.stream import AudioError, AudioStream
from app.limits import MAX_CHANNELS
from app.live import Commit, Committed
from app.messages import (
    INTERNAL,
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    Query,
    RawFormat,
    Rejected,
    SampleEncoding,
    Send,
    Upgrade,
)
from app.protocols.base import Protocol, ProtocolError, Upgradable
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site, SocketRoute
from app.protocols.model_names import ModelNames
from app.protocols.native.header import parse_header
from app.protocols.native.protocol import NativeProtocol
from app.protocols.realtime.config import Node
from app.protocols.realtime.dialogue import RealtimeDialogue
from app.protocols.vosk.dialogue import VoskDialogue
from app.protocols.websocket.session import WebSocketSession
from app.protocols.wyoming.events import Program
from app.protocols.wyoming.protocol import WyomingProtocol

Target = Callable[[bytes], None]

MAX_BODY = 1 << 20
_DECODED_SECONDS = 600.0
_READS = 100

_OPENER = MediaOpener()


def framed(data: bytes) -> None:
    """The native framing."""
    check_protocol(lambda: NativeProtocol(MAX_BODY, lambda: "made"), data)


def header(data: bytes) -> None:
    """A native message's JSON header."""
    try:
        parsed = parse_header(data, MAX_BODY, lambda: "made")
    except ProtocolError:
        return
    # Live audio has no length.
    assert parsed.content_length is None or 0 <= parsed.content_length <= MAX_BODY
    assert (parsed.request is None) != (parsed.failure is None)


def http(data: bytes) -> None:
    """HTTP and its forms. The events may depend on the split, because an answer can leave before or
    after the end of a body, so this target only checks that nothing fails."""
    route = SocketRoute(lambda _: WebSocketSession(VoskDialogue(), lambda: "made", None))
    names = ModelNames("tiny.en-q8_0", frozenset({"tiny.en"}))
    site = Site(names, 0, MAX_BODY, sockets={"/vosk": route})
    step = 1 + (data[-1] if data else 0) % 7
    for pieces in ([data], [data[at : at + step] for at in range(0, len(data), step)]):
        _story(HttpProtocol(site, lambda: "made"), pieces)


def websocket(data: bytes) -> None:
    """Frames and the events in them. The first byte selects the dialogue. Any split must give the
    same events and the same bytes for the client."""
    node = Node(ModelNames("m", frozenset()), frozenset({"en", "de"}), "auto", 0.5, True)

    def new() -> WebSocketSession:
        vosk = data[:1] == b"v"
        dialogue = VoskDialogue() if vosk else RealtimeDialogue(node, "made", data[:1] == b"o")
        return WebSocketSession(dialogue, lambda: "made", None)

    step = 1 + (data[-1] if data else 0) % 7
    frames = data[1:]
    whole = _session_story(new(), [frames])
    split = _session_story(new(), [frames[at : at + step] for at in range(0, len(frames), step)])
    assert whole == split, f"{whole!r} is not {split!r}"


def _session_story(session: WebSocketSession, pieces: list[bytes]) -> list[object]:
    """Return the events without `Send`, and the bytes for the client, as one string each."""
    story: list[object] = []
    sent, audio = bytearray(), bytearray()
    try:
        for piece in pieces:
            session.feed(piece)
            while (event := session.next_event()) is not None:
                if isinstance(event, Send):
                    sent += event.data
                elif isinstance(event, BodyData):
                    audio += event.data
                else:
                    story.append(event)
                if isinstance(event, Begin):
                    session.accept()
                elif isinstance(event, Commit):
                    sent += session.encode("made", Committed(0.0))
                elif isinstance(event, End):
                    sent += session.encode("made", Failure(INTERNAL, "fuzzed"))
    except ProtocolError as error:
        story.append(error.failure.code)
        sent += session.encode(None, error.failure)
        session.abandon()
    return [*story, bytes(sent), bytes(audio)]


def wyoming(data: bytes) -> None:
    """Wyoming's events."""
    program = Program("0", ModelNames("m", frozenset({"m"})), ("en",), True)
    check_protocol(lambda: WyomingProtocol(program, MAX_BODY, lambda: "made"), data)


def decode(data: bytes) -> None:
    """A file of any kind, from the recognition of its format to samples."""
    _drain(data, None)


def samples(data: bytes) -> None:
    """Raw samples in a format that the first three bytes describe."""
    if len(data) < 3:
        return
    encoding = get_args(SampleEncoding)[data[0] % len(get_args(SampleEncoding))]
    described = RawFormat(
        encoding=encoding,
        sample_rate=(1_000, 8_000, 16_000, 44_100, 384_000)[data[1] % 5],
        channels=1 if encoding in ONE_CHANNEL else data[2] % 64 + 1,
        byteorder="big" if data[1] & 128 else "little",
    )
    _drain(data[3:], described)


def media(data: bytes) -> None:
    """A recording of a phone or browser, in a child process of its own."""
    _drain(data, None, _OPENER.open)


def wire(data: bytes) -> None:
    """The messages of the child process, as a compromised decoder could send them."""
    places: list[Resume | None] = []

    def start(place: Resume | None) -> Child:
        places.append(place)
        return _Replay(data)

    message = ""
    try:
        file = MediaFile("mp4/m4a", True, False, start, Slots(1))
        # `AudioStream` refuses more channels before it reads.
        buffer = np.empty((4_000, min(file.channels, MAX_CHANNELS)), dtype=np.float32)
        for count in range(_READS if file.channels <= MAX_CHANNELS else 0):
            if len(file.read(buffer)) == 0:
                break
            if count % 3 == 2:
                file.suspend()
        file.close()
    except AudioError as error:
        message = error.failure.message
    assert message.isprintable()
    assert all(place is None or place.frames > 0 for place in places)


class _Replay(Child):
    """A child that sends given bytes and ends."""

    def __init__(self, data: bytes) -> None:
        self._pipe, writer = os.pipe()
        # As many as a pipe takes without a reader.
        os.write(writer, data[:65_536])
        os.close(writer)
        self._data = bytearray()
        self._waited = 0.0

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _check_time(self, position: float) -> None:
        pass

    def _ending(self) -> str:
        return "its decoder ended"


def check_protocol(new: Callable[[], Protocol], data: bytes) -> None:
    """Check that a stream gives the same events or `ProtocolError` in any split."""
    # The splits come from the input itself, so that a failure is reproducible.
    step = 1 + (data[-1] if data else 0) % 7
    whole = _story(new(), [data])
    split = _story(new(), [data[at : at + step] for at in range(0, len(data), step)])
    assert whole == split, f"{whole!r} is not {split!r}"


def _story(protocol: Protocol, pieces: list[bytes]) -> list[object]:
    """Return the events of a stream with joined bodies, because a split stream splits bodies."""
    story: list[object] = []
    try:
        for piece in pieces:
            protocol.feed(piece)
            for event in _events(protocol):
                if not isinstance(event, BodyData):
                    story.append(event)
                elif story and isinstance(story[-1], bytearray):
                    story[-1] += event.data
                else:
                    story.append(bytearray(event.data))
    except ProtocolError as error:
        story.append((error.failure.code, error.request_id))
    return [item for item in story if item != bytearray()]


def _events(protocol: Protocol) -> Iterator[Event]:
    while (event := protocol.next_event()) is not None:
        yield event
        if isinstance(event, Begin):
            protocol.accept()
        elif isinstance(event, Upgrade):
            successor = cast(Upgradable, protocol).upgrade()
            successor.session.feed(successor.unread)
            yield from _events(successor.session)
            return
        elif isinstance(event, End | Broken | Rejected | Query):
            # A protocol that takes one message at a time continues after its last reply.
            _answer(protocol)


def _answer(protocol: Protocol) -> None:
    protocol.encode("made", Failure(INTERNAL, "fuzzed"))


def _drain(data: bytes, raw: RawFormat | None, media: OpenMedia | None = None) -> None:
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        stream = AudioStream(descriptor, len(data), raw, _DECODED_SECONDS, media=media)
        try:
            while (block := stream.read()) is not None:
                assert block.dtype == "float32"
                assert block.ndim == 1
                assert len(block) == 0 or abs(block).max() <= 8.0
        finally:
            stream.close()
    except AudioError:
        return
    finally:
        os.close(descriptor)


TARGETS: dict[str, Target] = {
    "framed": framed,
    "header": header,
    "http": http,
    "websocket": websocket,
    "wyoming": wyoming,
    "decode": decode,
    "samples": samples,
    "media": media,
    "wire": wire,
}
