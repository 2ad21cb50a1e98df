"""Wyoming without IO. The `wyoming` package writes the input and reads the replies."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from fakes import transcript_of
from hypothesis import example, given
from hypothesis import strategies as st
from streams import Seen, see_body, split
from wyoming.asr import (
    Transcribe,
    Transcript,
    TranscriptChunk,
    TranscriptStart,
    TranscriptStop,
)
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event as WyomingEvent
from wyoming.event import Eventable, read_event, write_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong

from app.limits import MAX_PROMPT_BYTES
from app.live import Configure, LiveOptions
from app.messages import (
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    RawFormat,
    Rejected,
    Request,
    Segment,
    Send,
    Streamed,
    Utterance,
)
from app.protocols.base import ProtocolError
from app.protocols.model_names import ModelNames
from app.protocols.wyoming.events import Program
from app.protocols.wyoming.protocol import WyomingProtocol
from app.protocols.wyoming.stream import MAX_DATA_BYTES, MAX_LINE_BYTES, MAX_PAYLOAD_BYTES

MAX_BODY = 1000
NAMES = ModelNames("tiny-q8_0", frozenset({"tiny", "tiny-q8_0"}), strict=True)
PLAIN = Program("0.1.0", NAMES, ("de", "en", "no"), False)
STREAMING = Program("0.1.0", NAMES, ("de", "en", "no"), True)
ENGLISH = Program("0.1.0", ModelNames("tiny.en", frozenset({"tiny.en"})), ("en",), False)


def wire(*events: Eventable | WyomingEvent) -> bytes:
    """Events as bytes, written by the package."""
    buffer = io.BytesIO()
    for event in events:
        write_event(event if isinstance(event, WyomingEvent) else event.event(), buffer)
    return buffer.getvalue()


def unwire(data: bytes) -> list[WyomingEvent]:
    """The events in `data`, read by the package. No byte may be left over."""
    buffer = io.BytesIO(data)
    events = []
    while buffer.tell() < len(data):
        event = read_event(buffer)
        assert event is not None
        events.append(event)
    return events


def start(rate: int = 16_000, width: int = 2, channels: int = 1) -> AudioStart:
    return AudioStart(rate, width, channels)


def chunk(audio: bytes, rate: int = 16_000, width: int = 2, channels: int = 1) -> AudioChunk:
    return AudioChunk(rate, width, channels, audio)


def spoken(audio: bytes, **fields: Any) -> bytes:
    """A whole transcription in two chunks."""
    half = len(audio) // 2
    chunks = [chunk(audio[:half]), chunk(audio[half:])] if audio else []
    return wire(Transcribe(**fields), start(), *chunks, AudioStop())


class Driver:
    """Feeds a protocol and stands in for the server: accepts, and answers complete requests."""

    def __init__(
        self,
        program: Program = PLAIN,
        accept: Callable[[Request], bool] = lambda request: True,
        answer: Callable[[Request], Any] = lambda request: transcript_of(f"text of {request.id}"),
        max_body: int = MAX_BODY,
    ) -> None:
        numbers = itertools.count(1)
        self.protocol = WyomingProtocol(program, max_body, lambda: f"r{next(numbers)}")
        self.seen: Seen = []
        self.said = b""
        self.requests: list[Request] = []
        self._accept = accept
        self._answer = answer
        self._failed = False

    def drive(self, pieces: Iterable[bytes]) -> Seen:
        for piece in pieces:
            self.protocol.feed(piece)
            try:
                while (event := self.protocol.next_event()) is not None:
                    self._see(event)
            except ProtocolError as error:
                self.seen.append(("lost", error.failure.code))
                self._reply(error.failure)
        return self.seen

    def _see(self, event: Event) -> None:
        if isinstance(event, BodyData):
            see_body(self.seen, event.data)
        elif isinstance(event, Begin):
            self._begin(event.request)
        elif isinstance(event, End):
            self.seen.append(("end",))
            self.requests[-1] = event.request or self.requests[-1]
            assert self.protocol.next_event() is None, "one transcription at a time"
            self._reply(self._answer(self.requests[-1]))
        elif isinstance(event, Broken):
            self.seen.append(("broken", event.failure.code))
            self._reply(event.failure)
        elif isinstance(event, Rejected):
            assert (event.reply, event.keep_alive) == ("transcript", True)
            self.seen.append(("refused", event.id, event.failure.code))
            self._reply(event.failure)
        else:
            assert isinstance(event, Send)
            self.said += event.data
            kinds = [said.type for said in unwire(event.data)]
            self.seen.append(("told", *kinds) if event.keep_alive else ("ends",))

    def _begin(self, request: Request) -> None:
        assert request.content_length is None
        assert self.protocol.next_event() is None, "nothing may come before the decision"
        self.requests.append(request)
        self.seen.append(("begin", request.id))
        if self._accept(request):
            assert self.protocol.accept() == b""
        else:
            self.protocol.reject()
            self._reply(Failure("busy", "no room", 2.04))

    def _reply(self, reply: Any) -> None:
        self.said += self.protocol.encode(None, reply)


def drive(pieces: Iterable[bytes], **more: Any) -> Seen:
    return Driver(**more).drive(pieces)


VECTORS: dict[str, tuple[bytes, Seen]] = {
    "one transcription": (
        spoken(b"abcdef"),
        [("begin", "r1"), ("body", b"abcdef"), ("end",)],
    ),
    "describe and ping": (
        wire(Describe(), Ping("x"), Ping()),
        [("told", "info"), ("told", "pong"), ("told", "pong")],
    ),
    "two, and a ping between": (
        spoken(b"ab") + wire(Ping()) + spoken(b"cd", language="de"),
        [
            ("begin", "r1"),
            ("body", b"ab"),
            ("end",),
            ("told", "pong"),
            ("begin", "r2"),
            ("body", b"cd"),
            ("end",),
        ],
    ),
    "a chunk without a start": (
        wire(chunk(b"ab"), AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("end",)],
    ),
    "a ping in the middle of the audio": (
        wire(chunk(b"ab"), Ping(), chunk(b"cd"), AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("told", "pong"), ("body", b"cd"), ("end",)],
    ),
    "a stop without audio": (wire(AudioStop()), [("told", "transcript")]),
    "no audio between start and stop": (spoken(b""), [("told", "transcript")]),
    "an empty chunk": (
        wire(start(), chunk(b""), AudioStop()) + spoken(b"ab"),
        [("told", "transcript"), ("begin", "r1"), ("body", b"ab"), ("end",)],
    ),
    "events of other types are skipped": (
        wire(
            SelectProgram("other"),
            WyomingEvent("unheard-of", {"a": 1}, b"payload"),
            chunk(b"ab"),
            WyomingEvent("unheard-of", {"a": 1}, b"payload"),
            AudioStop(),
        ),
        [("begin", "r1"), ("body", b"ab"), ("end",)],
    ),
    "a second start is skipped": (
        wire(start(), chunk(b"ab"), start(8_000), chunk(b"cd"), AudioStop()),
        [("begin", "r1"), ("body", b"abcd"), ("end",)],
    ),
    "a language in the middle of the audio": (
        wire(chunk(b"ab"), Transcribe(language="de"), AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("end",)],
    ),
    "rejected: read past, and the end": (
        spoken(b"no") + wire(Ping()) + spoken(b"ab"),
        [("begin", "r1"), ("ends",)],
    ),
    "a model that is not here": (
        spoken(b"ab", name="large") + spoken(b"ab"),
        [("refused", "r1", "model_not_found"), ("ends",)],
    ),
    "a model that is not here, and no audio": (
        wire(Transcribe(name="large"), AudioStop()) + spoken(b"ab"),
        [("refused", "r1", "model_not_found"), ("ends",)],
    ),
    "a model that is not here, named too late": (
        wire(chunk(b"ab"), Transcribe(name="large"), chunk(b"cd"), AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("broken", "model_not_found"), ("ends",)],
    ),
    "a wrong width": (
        wire(start(width=3), chunk(b"abc", width=3), Ping(), AudioStop()) + spoken(b"ab"),
        [("refused", "r1", "bad_field"), ("told", "pong"), ("ends",)],
    ),
    "a wrong rate, without a start": (
        wire(chunk(b"ab", rate=0), AudioStop()),
        [("refused", "r1", "bad_field"), ("ends",)],
    ),
    "the format changes": (
        wire(start(), chunk(b"ab"), chunk(b"cd", rate=8_000), chunk(b"ef"), AudioStop())
        + spoken(b"ab"),
        [("begin", "r1"), ("body", b"ab"), ("broken", "bad_field"), ("ends",)],
    ),
    "the chunk knows better than the start": (
        wire(start(48_000), chunk(b"ab"), AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("end",)],
    ),
    "the most audio": (
        spoken(b"x" * MAX_BODY),
        [("begin", "r1"), ("body", b"x" * MAX_BODY), ("end",)],
    ),
    "too much audio": (
        wire(chunk(b"x" * MAX_BODY), chunk(b"y"), AudioStop()),
        [("begin", "r1"), ("body", b"x" * MAX_BODY), ("broken", "too_large"), ("ends",)],
    ),
    "too much audio at once": (
        wire(chunk(b"x" * (MAX_BODY + 1)), AudioStop()),
        [("refused", "r1", "too_large"), ("ends",)],
    ),
    "an empty line": (b"\n" + wire(Ping()), [("lost", "bad_header")]),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", [("lost", "bad_header")]),
    "a list": (b"[]\n", [("lost", "bad_header")]),
    "no type": (b"{}\n", [("lost", "missing_field")]),
    "not UTF-8": (b'{"type": "\xff"}\n', [("lost", "bad_header")]),
    "nested too deeply": (b'{"a":' * 10_000 + b"\n", [("lost", "bad_header")]),
    "data that is no object": (b'{"type": "ping", "data": []}\n', [("lost", "bad_header")]),
    "data behind the line that is none": (
        b'{"type": "ping", "data_length": 2}\n[]',
        [("lost", "bad_header")],
    ),
    "a negative length": (
        wire(Ping()) + b'{"type": "ping", "payload_length": -1}\n',
        [("told", "pong"), ("lost", "bad_header")],
    ),
    "a length that is none": (
        b'{"type": "ping", "data_length": true}\n',
        [("lost", "bad_header")],
    ),
    "an endless line": (
        b'{"type": "ping", "' + b"x" * MAX_LINE_BYTES,
        [("lost", "too_large")],
    ),
    "long data": (
        b'{"type": "ping", "data_length": %d}\n' % (MAX_DATA_BYTES + 1),
        [("lost", "too_large")],
    ),
    "a long payload": (
        b'{"type": "ping", "payload_length": %d}\n' % (MAX_PAYLOAD_BYTES + 1),
        [("lost", "too_large")],
    ),
    "lost in the middle of the audio": (
        wire(chunk(b"ab")) + b"ab\n" + wire(AudioStop()),
        [("begin", "r1"), ("body", b"ab"), ("lost", "bad_header")],
    ),
    "lengths that are null": (
        b'{"type": "ping", "data": null, "data_length": null, "payload_length": null}\n',
        [("told", "pong")],
    ),
}


def accept(request: Request) -> bool:
    return request.id != "r1"


def decision(name: str) -> Callable[[Request], bool]:
    return accept if name.startswith("rejected") else lambda request: True


@pytest.mark.parametrize("name", VECTORS)
def test_vector_fed_at_once(name: str) -> None:
    stream, events = VECTORS[name]
    assert drive([stream], accept=decision(name)) == events


@pytest.mark.parametrize("name", VECTORS)
def test_vector_fed_byte_by_byte(name: str) -> None:
    stream, events = VECTORS[name]
    pieces = (stream[at : at + 1] for at in range(len(stream)))
    assert drive(pieces, accept=decision(name)) == events


@pytest.mark.parametrize("name", VECTORS)
def test_truncated_vector_gives_its_first_events(name: str) -> None:
    stream, events = VECTORS[name]
    for end in {0, 1, 2, len(stream) // 3, len(stream) // 2, len(stream) - 1}:
        seen = drive([stream[:end]], accept=decision(name))
        if seen and seen[-1][0] == "body":
            assert events[len(seen) - 1][1].startswith(seen.pop()[1])
        # A line that does not begin like JSON is rejected before its end.
        assert seen == events[: len(seen)]


# Random streams, generated together with the expected events.


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, Seen]:
    stream, events = b"", []
    numbers = itertools.count(1)
    for kind in draw(st.lists(st.sampled_from(["speak", "ping", "empty", "skip"]), max_size=5)):
        if kind == "ping":
            stream += wire(Ping(draw(st.text(max_size=9))))
            events.append(("told", "pong"))
        elif kind == "skip":
            data = draw(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
            stream += wire(WyomingEvent("other", data, draw(st.binary(max_size=30))))
        elif kind == "empty":
            stream += spoken(b"")
            events.append(("told", "transcript"))
        else:
            chunks = draw(st.lists(st.binary(max_size=40), max_size=4))
            stream += wire(start(), *map(chunk, chunks), AudioStop())
            body = b"".join(chunks)
            if not body:
                events.append(("told", "transcript"))
                continue
            events += [("begin", f"r{next(numbers)}"), ("body", body), ("end",)]
    if draw(st.booleans()):
        stream += wire(start(width=5), chunk(b"x"), AudioStop(), Ping())
        events += [("refused", f"r{next(numbers)}", "bad_field"), ("ends",)]
    return stream, events


CUTS = st.lists(st.integers(0, 1 << 16), max_size=20)


@given(streams(), CUTS)
def test_valid_stream_gives_the_same_events_in_any_split(
    case: tuple[bytes, Seen], cuts: list[int]
) -> None:
    stream, events = case
    assert drive(split(stream, cuts)) == events


@given(streams(), CUTS, st.integers(0, 1 << 16), st.binary(min_size=1, max_size=3))
def test_damaged_stream_gives_the_same_events_in_any_split(
    case: tuple[bytes, Seen], cuts: list[int], at: int, fault: bytes
) -> None:
    stream = case[0] or wire(Ping())
    at %= len(stream)
    broken = stream[:at] + fault + stream[at + len(fault) :]
    assert drive(split(broken, cuts)) == drive([broken])


@given(st.lists(st.binary(max_size=200), max_size=8))
@example([b'{"type": "audio-chunk", "payload_length": 9}\n', b"x" * 9])
def test_random_bytes_give_events_or_one_exception(pieces: list[bytes]) -> None:
    seen = drive(pieces)
    lost = [index for index, entry in enumerate(seen) if entry[0] == "lost"]
    assert lost in ([], [len(seen) - 1]), "nothing may come after the loss"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["en", "audio-start", "tiny", 16_000, 2, "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)
FIELD = st.sampled_from(
    ["rate", "width", "channels", "language", "name", "transcript_names", "text", "context"]
)
KIND = st.sampled_from(
    ["transcribe", "audio-start", "audio-chunk", "audio-stop", "ping", "describe", "other"]
)


EVENT = st.tuples(KIND, st.dictionaries(FIELD, JSON, max_size=4))


@given(st.lists(EVENT, max_size=4), st.binary(max_size=50))
def test_random_fields_give_events_and_lose_no_audio(
    events: list[tuple[str, dict[str, Any]]], payload: bytes
) -> None:
    stream = b""
    for kind, data in events:
        line = {"type": kind, "data": data, "payload_length": len(payload)}
        stream += json.dumps(line).encode() + b"\n" + payload
    driver = Driver()
    driver.drive([stream])
    assert all(entry[0] != "lost" for entry in driver.seen)
    unwire(driver.said)


# The fields of a request.


def request_of(stream: bytes, program: Program = PLAIN) -> Request:
    driver = Driver(program)
    driver.drive([stream])
    assert driver.seen[-1] == ("end",)
    (request,) = driver.requests
    return request


def test_transcribe_becomes_a_request() -> None:
    assert request_of(spoken(b"ab", name="tiny", language="de-AT")) == Request(
        id="r1",
        content_length=None,
        raw=RawFormat("s16", 16_000, 1, "little"),
        language="de",
        reply="transcript",
        keep_alive=True,
        model="tiny",
    )
    assert request_of(spoken(b"ab"), STREAMING).reply == "segments"


def test_task_of_the_node_is_that_of_its_requests() -> None:
    translating = replace(PLAIN, task="translate")
    assert request_of(spoken(b"ab", language="de"), translating).task == "translate"
    driver = Driver(translating)
    driver.drive([spoken(b"ab", language="de")])
    (transcript,) = unwire(driver.protocol.encode("r1", transcript_of("hello", language="de")))
    assert transcript.data == {"text": "hello", "language": "en"}


def test_other_model_is_served_unless_the_node_is_strict() -> None:
    lenient = replace(PLAIN, names=replace(NAMES, strict=False))
    assert request_of(spoken(b"ab", name="large-v3"), lenient).model == "large-v3"


@pytest.mark.parametrize(("width", "encoding"), [(1, "u8"), (2, "s16"), (4, "s32")])
def test_format_of_the_samples_is_that_of_the_chunk(width: int, encoding: str) -> None:
    request = request_of(wire(chunk(bytes(12), 44_100, width, 3), AudioStop()))
    assert request.raw is not None
    assert (request.raw.encoding, request.raw.byteorder) == (encoding, "little")
    assert (request.raw.sample_rate, request.raw.channels) == (44_100, 3)


def test_chunk_without_format_has_that_of_the_start() -> None:
    bare = WyomingEvent("audio-chunk", {"timestamp": 1}, b"abcd")
    request = request_of(wire(start(8_000, 4), bare, AudioStop()))
    assert request.raw == RawFormat("s32", 8_000, 1, "little")
    assert drive([wire(bare, AudioStop())])[0] == ("refused", "r1", "bad_field")


def test_data_after_the_line_overrides_data_in_the_line() -> None:
    inline = {"language": "de", "name": "tiny"}
    behind = b'{"language": "en"}'
    line = {"type": "transcribe", "data": inline, "data_length": len(behind), "version": "1.2.3"}
    stream = json.dumps(line).encode() + b"\n" + behind
    assert request_of(stream + spoken(b"ab").replace(wire(Transcribe()), b"")).language == "en"


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        (None, None),
        ("", None),
        ("en", "en"),
        ("en-US", "en"),
        ("de_DE", "de"),
        ("AUTO", "auto"),
        ("multi", "multi"),
        ("nb", "no"),
        ("xx", "xx"),
    ],
)
def test_language_is_normalised(asked: str | None, language: str | None) -> None:
    assert request_of(spoken(b"ab", language=asked)).language == language


def test_invalid_language_is_rejected() -> None:
    for language in ("english please", 7, ["en"]):
        stream = spoken(b"ab", language=language)
        assert drive([stream]) == [("refused", "r1", "bad_field"), ("ends",)]


def test_auto_is_read_for_an_english_model() -> None:
    assert request_of(spoken(b"ab", language="auto"), ENGLISH).language == "auto"


def test_language_after_the_audio_applies_to_it() -> None:
    stream = wire(chunk(b"ab"), Transcribe(language="de"), AudioStop())
    assert request_of(stream).language == "de"


def test_options_apply_to_one_transcription_only() -> None:
    driver = Driver()
    driver.drive([spoken(b"ab", language="de", transcript_names=["Ada"]) + spoken(b"cd")])
    first, second = driver.requests
    assert (first.language, first.prompt) == ("de", "Ada")
    assert (second.language, second.prompt) == (None, "")


def test_names_and_terms_become_the_prompt() -> None:
    hints = {"transcript_names": ["Ada's  lamp", "Bo"], "transcript_terms": ["Zigbee"]}
    assert request_of(spoken(b"ab", **hints)).prompt == "Zigbee, Ada's lamp, Bo"


def test_invalid_hints_are_skipped() -> None:
    odd = {"transcript_names": ["Ada", "", " ", 7, None, "a\0b", "\ud800"], "transcript_terms": "x"}
    line = json.dumps({"type": "transcribe", "data": odd}).encode() + b"\n"
    assert request_of(line + wire(chunk(b"ab"), AudioStop())).prompt == "Ada"


def test_long_hints_keep_names_last_and_beyond_the_limit_fail() -> None:
    many = [f"name {number}" for number in range(1_000)]
    prompt = request_of(spoken(b"ab", transcript_names=many, transcript_terms=["term"])).prompt
    assert prompt == ", ".join(["term", *many])
    half = "x" * (MAX_PROMPT_BYTES // 2)
    driver = Driver()
    driver.drive([spoken(b"ab", transcript_names=[half], transcript_terms=[half])])
    assert not driver.requests
    assert b"bad_field" in driver.said


# Replies, read by the package's own classes.


def said(program: Program = PLAIN, reply: Any = None, stream: bytes = b"") -> list[WyomingEvent]:
    driver = Driver(program, answer=lambda request: reply)
    driver.drive([stream or spoken(b"ab")])
    return unwire(driver.said)


def test_describe_gives_the_info() -> None:
    (event,) = said(stream=wire(Describe()))
    assert Info.is_type(event.type)
    info = Info.from_event(event)
    (program,) = info.asr
    (model,) = program.models
    assert (program.name, program.version) == ("node-whisper", "0.1.0")
    assert program.installed
    assert not program.supports_transcript_streaming
    assert program.requires_external_vad
    assert (model.name, model.languages) == ("tiny-q8_0", ["de", "en", "no"])
    assert model.installed
    assert all(artifact.attribution.name for artifact in (program, model))
    assert all(artifact.attribution.url for artifact in (program, model))
    assert [info.tts, info.wake, info.handle, info.intent, info.mic, info.snd] == [[]] * 6
    assert info.satellite is None
    (event,) = said(STREAMING, stream=wire(Describe()))
    assert Info.from_event(event).asr[0].supports_transcript_streaming


def test_pong_repeats_the_text_of_the_ping() -> None:
    events = said(stream=wire(Ping("Größe 日本"), Ping(), WyomingEvent("ping", {"text": 7})))
    assert all(Pong.is_type(event.type) for event in events)
    assert [Pong.from_event(event).text for event in events] == ["Größe 日本", None, None]


def test_transcript_has_text_and_language() -> None:
    (event,) = said(reply=transcript_of("Größe 日本", language="de"))
    assert Transcript.is_type(event.type)
    assert Transcript.from_event(event) == Transcript("Größe 日本", language="de")
    (event,) = said(reply=transcript_of("", language=None))
    assert Transcript.from_event(event) == Transcript("")


def test_transcript_of_audio_that_ends_within_a_sample_is_truncated() -> None:
    (event,) = said(reply=transcript_of("one", truncated=True))
    assert event.data["truncated"] is True
    assert Transcript.from_event(event).text == "one"
    (event,) = said(reply=transcript_of("one"))
    assert "truncated" not in event.data


def test_no_audio_gives_an_empty_transcript() -> None:
    for stream in (wire(AudioStop()), spoken(b"")):
        (event,) = said(stream=stream)
        assert Transcript.from_event(event) == Transcript("")


def test_failure_becomes_an_error_event() -> None:
    (event,) = said(reply=Failure("bad_audio", "there is none"))
    assert Error.is_type(event.type)
    assert Error.from_event(event) == Error("there is none", "bad_audio")
    driver = Driver(accept=lambda request: False)
    driver.drive([spoken(b"ab")])
    (event,) = unwire(driver.said)
    assert event.data == {"text": "no room", "code": "busy", "retry_after_seconds": 2.0}


def test_error_event_for_a_connection_without_a_message() -> None:
    protocol = WyomingProtocol(PLAIN, MAX_BODY, lambda: "r")
    (event,) = unwire(protocol.encode(None, Failure("busy", "too many connections")))
    assert Error.from_event(event).code == "busy"
    (event,) = said(stream=b"ab\n")
    assert Error.from_event(event).code == "bad_header"


def streamed(language: str | None, *segments: str) -> list[WyomingEvent]:
    protocol = WyomingProtocol(STREAMING, MAX_BODY, lambda: "r")
    protocol.feed(spoken(b"ab", language=language))
    assert isinstance(protocol.next_event(), Begin)
    protocol.accept()
    while not isinstance(protocol.next_event(), End):
        pass
    data = b"".join(
        protocol.encode("r", Utterance(0.0, 1.0, (Segment(0.0, 1.0, text, 0.9),)))
        for text in segments
    )
    data += protocol.encode("r", Streamed("de", 1, 1, 1.0, 0.1, "m", truncated=False))
    # The next transcript has its own start.
    protocol.feed(spoken(b""))
    event = protocol.next_event()
    assert isinstance(event, Send)
    assert TranscriptStart.is_type(unwire(event.data)[0].type)
    return unwire(data)


def test_streaming_sends_chunks_and_then_the_transcript() -> None:
    events = streamed("de", "One.", "Two.", "Three.")
    first, *chunks, whole, last = events
    assert TranscriptStart.is_type(first.type)
    assert TranscriptStart.from_event(first).language == "de"
    assert all(TranscriptChunk.is_type(event.type) for event in chunks)
    text = "".join(TranscriptChunk.from_event(event).text for event in chunks)
    assert text == Transcript.from_event(whole).text == "One. Two. Three."
    assert TranscriptStop.is_type(last.type)


def test_streaming_decodes_the_audio_as_a_stream() -> None:
    protocol = WyomingProtocol(STREAMING, MAX_BODY, lambda: "r")
    protocol.feed(wire(start(), chunk(b"ab")))
    begin = protocol.next_event()
    assert isinstance(begin, Begin)
    assert begin.request.live == LiveOptions(end_pause=None)
    protocol.accept()
    protocol.feed(wire(Transcribe(language="de", transcript_names=["Ada"])))
    assert isinstance(protocol.next_event(), BodyData)
    assert protocol.next_event() == Configure(LiveOptions(end_pause=None), "de", "Ada")


def test_streaming_of_silence_has_start_and_stop() -> None:
    assert [event.type for event in streamed(None)] == [
        "transcript-start",
        "transcript",
        "transcript-stop",
    ]


# The contract with connection and server.


def test_audio_after_an_error_is_skipped_before_the_close() -> None:
    """Home Assistant ignores an error event, and takes the end of the connection for an error."""
    driver = Driver(answer=lambda request: Failure("internal", "x"))
    assert driver.drive([spoken(b"ab") + spoken(b"cd")])[-1] == ("ends",)
    assert len(driver.requests) == 1
    assert driver.protocol.idle


def test_failure_during_the_audio_ends_the_connection_after_it() -> None:
    driver = Driver()
    driver.drive([wire(chunk(b"ab"))])
    driver.said += driver.protocol.encode("r1", Failure("busy", "no further step"))
    driver.protocol.feed(wire(chunk(b"cd"), AudioStop()) + spoken(b"ef"))
    events = list(iter(driver.protocol.next_event, None))
    assert [type(event) for event in events] == [BodyData, End, Send]
    assert events[-1] == Send(b"", keep_alive=False)


def test_idle_reading_body_and_full_follow_the_stream() -> None:
    protocol = WyomingProtocol(PLAIN, MAX_BODY, lambda: "r")
    states = []

    def feed(data: bytes) -> None:
        protocol.feed(data)
        while (event := protocol.next_event()) is not None:
            if isinstance(event, Begin):
                states.append((protocol.idle, protocol.reading_body, protocol.full))
                protocol.accept()
        states.append((protocol.idle, protocol.reading_body, protocol.full))

    feed(wire(Transcribe(), start()))
    feed(b"{")
    feed(wire(chunk(b"abcd"))[1:-2])
    feed(b"cd")
    feed(wire(AudioStop()))
    feed(b"x" * 65_535)
    feed(b"x")
    assert states == [
        (True, False, False),
        (False, False, False),
        (False, False, False),
        (False, True, False),
        (False, True, False),
        (True, False, False),
        (True, False, False),
        (True, False, True),
    ]
    protocol.encode("r", transcript_of("x"))
    assert not protocol.full
