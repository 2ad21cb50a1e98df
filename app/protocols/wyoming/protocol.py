"""Wyoming, the protocol of Home Assistant's voice pipeline: events in, a transcript out.

    transcribe    optional: language, model, words to expect, for the next audio
    audio-start   optional: every chunk carries the format of its samples
    audio-chunk   any number; the first one with samples is the `Begin`
    audio-stop    the `End`; `transcript` answers it

`WyomingProtocol` is the state machine; `app/protocols/wyoming/events.py` has the events, and
docs/wyoming.md describes both. It handles one transcription at a time: events after an
`audio-stop` wait for the reply. `describe` and `ping` are answered in any state, and other types
are skipped.

After an `error` the connection ends, once the audio in question has been read. Home Assistant
ignores an error and waits for the transcript; it reacts to the end of the connection. The reference
server ends the connection after every transcript, so every client can reconnect. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from enum import Enum, auto
from typing import Any

from app.live import Configure, LiveOptions
from app.messages import (
    BAD_FIELD,
    TOO_LARGE,
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    RawFormat,
    Rejected,
    Reply,
    Request,
    Segment,
    Send,
    Streamed,
    Transcript,
    Utterance,
)
from app.protocols.base import MAX_HELD_BYTES, ProtocolError
from app.protocols.wyoming.answer import Answer
from app.protocols.wyoming.events import (
    Program,
    TranscribeOptions,
    read_format,
    read_options,
    write_failure,
    write_info,
    write_pong,
)
from app.protocols.wyoming.stream import EventStream, Head

LIVE = LiveOptions(end_pause=None)
"""With streaming the audio is decoded as a stream: each utterance is final where long speech is
cut, or at the end."""


class _State(Enum):
    """The position within a transcription."""

    BETWEEN = auto()
    DECISION = auto()
    AUDIO = auto()
    DISCARD = auto()
    """Rejected audio, up to its `audio-stop`."""
    REPLY = auto()
    ENDING = auto()
    """The last reply is made; the connection is about to end."""
    DONE = auto()


class WyomingProtocol:
    """Wyoming as a `Protocol`: see `app/protocols/base.py` for the contract.

    `program` describes the node; `max_body` is the most audio of one request, in bytes; `new_id`
    makes a request's id, because Wyoming has none.
    """

    end_means_gone = True

    def __init__(self, program: Program, max_body: int, new_id: Callable[[], str]) -> None:
        self._program = program
        self._max_body = max_body
        self._new_id = new_id
        self._state = _State.BETWEEN
        self._stream = EventStream()
        self._passing = False
        """True if the current payload is audio; any other payload is skipped."""
        self._forget()

    def _forget(self) -> None:
        """Reset the state of one transcription."""
        self._options: TranscribeOptions | Failure = TranscribeOptions()
        self._format: RawFormat | None = None
        self._request: Request | None = None
        self._audio_bytes = 0
        self._failed = False
        # The language of the text, not of the speech.
        translated = "en" if self._program.task == "translate" else None
        self._answer = Answer(self._program.streaming, translated)

    def feed(self, data: bytes) -> None:
        if self._state is not _State.DONE:
            self._stream.feed(data)

    def next_event(self) -> Event | None:
        while self._state not in (_State.DECISION, _State.REPLY, _State.DONE):
            if self._state is _State.ENDING:
                self.abandon()
                return Send(b"", keep_alive=False)
            if (piece := self._stream.payload()) is not None:
                if self._passing and self._state is _State.AUDIO:
                    return BodyData(piece)
                continue
            try:
                head = self._stream.head()
            except ProtocolError:
                self.abandon()
                raise
            if head is None:
                return None
            event = self._react(head)
            self._passing = head.kind == "audio-chunk"
            if event is not None:
                return event
        return None

    def accept(self) -> bytes:
        self._decide(_State.AUDIO)
        return b""

    def reject(self) -> None:
        self._decide(_State.DISCARD)

    def abandon(self) -> None:
        self._state = _State.DONE
        self._stream.clear()

    @property
    def idle(self) -> bool:
        if self._state is _State.BETWEEN:
            return self._stream.between
        return self._state in (_State.REPLY, _State.ENDING, _State.DONE)

    @property
    def reading_body(self) -> bool:
        return self._state in (_State.AUDIO, _State.DISCARD)

    @property
    def full(self) -> bool:
        return self._state is _State.REPLY and self._stream.held >= MAX_HELD_BYTES

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        if isinstance(reply, Segment | Utterance):
            return self._answer.parts(reply)
        if isinstance(reply, Transcript | Streamed):
            events = self._answer.whole(reply)
            self._forget()
            if self._state is _State.REPLY:
                self._state = _State.BETWEEN
            return events
        assert isinstance(reply, Failure)
        self._failed = True
        if self._state is _State.REPLY:
            self._state = _State.ENDING
        return write_failure(reply)

    # Reactions to events.

    def _react(self, head: Head) -> Event | None:
        kind, data = head.kind, head.data
        if kind == "describe":
            return Send(write_info(self._program))
        if kind == "ping":
            return Send(write_pong(data))
        if kind == "audio-stop":
            return self._on_stop()
        if self._state is _State.DISCARD:
            return None
        if kind == "transcribe":
            return self._on_transcribe(data)
        if kind == "audio-start" and self._state is _State.BETWEEN:
            return self._on_start(data)
        if kind == "audio-chunk" and head.payload_length:
            return self._on_chunk(data, head.payload_length)
        return None

    def _on_transcribe(self, data: dict[str, Any]) -> Event | None:
        self._options = read_options(data, self._program)
        if self._state is not _State.AUDIO:
            return None
        # Within the audio; the reference accepts it there, too.
        options = self._options
        if isinstance(options, Failure):
            return self._break(options)
        return (
            Configure(LIVE, options.language, options.prompt) if self._program.streaming else None
        )

    def _on_start(self, data: dict[str, Any]) -> Event | None:
        found = read_format(data)
        if isinstance(found, Failure):
            return self._refuse(found)
        self._format = found
        # Report the fault now, before the client sends audio in vain.
        return self._refuse(self._options) if isinstance(self._options, Failure) else None

    def _on_chunk(self, data: dict[str, Any], length: int) -> Event | None:
        begun = self._state is _State.AUDIO
        found = self._checked(data, length, begun)
        if isinstance(found, Failure):
            return self._break(found) if begun else self._refuse(found)
        self._audio_bytes += length
        if begun:
            return None
        if isinstance(self._options, Failure):
            return self._refuse(self._options)
        self._format = found
        self._request = self._new_request(found, self._options)
        self._answer.language = self._request.language
        self._state = _State.DECISION
        return Begin(self._request)

    def _checked(self, data: dict[str, Any], length: int, begun: bool) -> RawFormat | Failure:
        found = read_format(data, self._format)
        # The format of audio-start does not bind: the reference uses only that of the chunks.
        if isinstance(found, RawFormat) and begun and found != self._format:
            return Failure(
                BAD_FIELD,
                "the format of the samples changed within the stream",
            )
        if self._audio_bytes + length > self._max_body:
            message = f"the audio exceeds the limit of {self._max_body} bytes"
            return Failure(TOO_LARGE, message)
        return found

    def _on_stop(self) -> Event | None:
        if self._state is _State.DISCARD:
            self._state = _State.ENDING
            return None
        options = self._options
        if self._state is _State.AUDIO:
            assert self._request is not None
            assert not isinstance(options, Failure)
            request = replace(self._request, **asdict(options))
            self._state = _State.ENDING if self._failed else _State.REPLY
            return End(None if request == self._request else request)
        if isinstance(options, Failure):
            self._state = _State.ENDING
            return self._refusal(options)
        # Home Assistant sends no audio if nobody spoke. The reference answers with an empty
        # transcript, too.
        events = self._answer.end("", options.language)
        self._forget()
        return Send(events)

    def _new_request(self, raw: RawFormat, options: TranscribeOptions) -> Request:
        return Request(
            id=self._new_id(),
            content_length=None,
            raw=raw,
            task=self._program.task,
            reply="segments" if self._program.streaming else "transcript",
            keep_alive=True,
            live=LIVE if self._program.streaming else None,
            **asdict(options),
        )

    def _refuse(self, failure: Failure) -> Rejected:
        self._state = _State.DISCARD
        return self._refusal(failure)

    def _refusal(self, failure: Failure) -> Rejected:
        # The connection stays open until the audio ends: bytes that a client writes after our close
        # cause a reset, which can destroy the error in transit.
        return Rejected(self._new_id(), failure, "transcript", keep_alive=True)

    def _break(self, failure: Failure) -> Broken:
        self._state = _State.DISCARD
        return Broken(failure)

    def _decide(self, state: _State) -> None:
        if self._state is not _State.DECISION:
            raise RuntimeError("accept() and reject() answer a Begin")
        self._state = state
