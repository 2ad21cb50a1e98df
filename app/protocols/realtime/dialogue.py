"""A transcription session of OpenAI's Realtime API as a dialogue over WebSocket.

The client's events are JSON objects in text messages; audio is base64 within them. An event that
cannot be followed gets an event `error`, and the session goes on. A change of the audio's format,
of the candidate languages, to probabilities of tokens, or between turn detection and the client's
commits ends the stream and begins another; other changes apply to the next utterance. Loop thread.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.live import (
    Clear,
    Commit,
    Committed,
    Configure,
    Partial,
    SpeechBegan,
    SpeechEnded,
)
from app.messages import BAD_FIELD, Failure, RawFormat, Reply, Request, Streamed, Utterance
from app.protocols.realtime.config import (
    AudioFormat,
    Config,
    ConfigError,
    Node,
    updated,
)
from app.protocols.realtime.events import Events
from app.protocols.realtime.g711 import ALAW, ULAW, expanded
from app.protocols.realtime.items import MIN_COMMIT_SECONDS, Items, empty_commit
from app.protocols.realtime.session_json import session_json
from app.protocols.realtime.turns import live_options
from app.protocols.websocket.dialogue import Action, Audio, EndStream, Leave, Say
from app.protocols.websocket.frames import INVALID_DATA, UNSUPPORTED_DATA

MAX_EVENT_BYTES = 65_536
"""Characters of an event without audio."""

_MAX_MARKS = 256
"""Brackets and commas in a longer event, which holds little but base64. Parsing a million of them
would be a long turn of the loop."""

SUPPORTED = (
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
)


_G711 = {"pcmu": ULAW, "pcma": ALAW}


@dataclass(slots=True)
class _Stream:
    """The stream in progress: its format, whether the node detects the turns, and its bytes as the
    client codes them, in all and before the last commit."""

    open: bool = False
    format: AudioFormat = field(default_factory=AudioFormat)
    turns: bool = True
    bytes: int = 0
    committed: int = 0

    def seconds(self, count: int) -> float:
        return count / (self.format.sample_bytes * self.format.rate)


class RealtimeDialogue:
    """A session as a `Dialogue`. `session` is a part of its id and of all others; `older` is true
    if the client names the beta of the API."""

    def __init__(self, node: Node, session: str, older: bool) -> None:
        self._node = node
        self._id = f"sess_{session}"
        self._events = Events(session, older)
        self._items = Items(session, self._events)
        self._beta = older
        self._config = Config()
        self._stream = _Stream()

    def greeting(self) -> Sequence[Action]:
        return [self._session("created", self._events.older)]

    def on_text(self, text: str) -> Sequence[Action]:
        if len(text) > MAX_EVENT_BYTES and _marks(text) > _MAX_MARKS:
            limit = f"an event without audio has at most {MAX_EVENT_BYTES} bytes"
            return [self._error("invalid_value", limit)]
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            reason = "the message is not valid JSON"
            return [self._error("invalid_json", reason), Leave(INVALID_DATA, reason)]
        if not isinstance(event, dict):
            return [self._error("invalid_event", "an event must be a JSON object")]
        event_id = event.get("event_id")
        return self._on_event(event, event_id if isinstance(event_id, str) else None)

    def on_binary(self, data: bytes, ended: bool) -> Sequence[Action]:
        return [Leave(UNSUPPORTED_DATA, "events are text messages; send audio as base64 in them")]

    def request(self, request_id: str) -> Request:
        return Request(
            id=request_id,
            content_length=None,
            raw=RawFormat("s16", self._config.format.rate, 1, "little"),
            language=self._config.language,
            languages=self._config.languages,
            prompt=self._config.whole_prompt,
            reply="segments",
            keep_alive=True,
            live=live_options(self._config.turns),
            model=self._config.model,
            logprobs=self._config.logprobs,
        )

    def on_reply(self, reply: Reply) -> Sequence[Say | Leave]:
        if isinstance(reply, Streamed | Failure):
            return self._ended(reply)
        if isinstance(reply, SpeechBegan | SpeechEnded | Partial | Committed | Utterance):
            return [Say(event) for event in self._items.report(reply, self._stream.turns)]
        return []

    # The client's events.

    def _on_event(self, event: dict[str, Any], event_id: str | None) -> Sequence[Action]:
        kind = event.get("type")
        if kind == "input_audio_buffer.append":
            return self._append(event, event_id)
        if kind == "input_audio_buffer.commit":
            return self._commit(event_id)
        if kind == "input_audio_buffer.clear":
            return self._clear()
        if kind in ("session.update", "transcription_session.update"):
            return self._update(event, event_id, older=kind != "session.update")
        if not isinstance(kind, str):
            return [self._error("missing_field", "an event must have a type", "type", event_id)]
        supported = ", ".join(f"'{name}'" for name in SUPPORTED)
        message = f"Invalid value: '{kind[:80]}'. Supported values are: {supported}."
        return [self._error("invalid_value", message, "type", event_id)]

    def _append(self, event: dict[str, Any], event_id: str | None) -> Sequence[Action]:
        audio = event.get("audio")
        if not isinstance(audio, str):
            return [self._error("invalid_type", "audio must be a string", "audio", event_id)]
        try:
            data = base64.b64decode(audio, validate=True)
        except ValueError:
            return [self._error("invalid_value", "audio is not valid base64", "audio", event_id)]
        if not data:
            return []
        if not self._stream.open:
            config = self._config
            self._stream = _Stream(True, config.format, config.turns is not None)
        self._stream.bytes += len(data)
        coding = self._stream.format.coding
        return [Audio(data if coding == "pcm" else expanded(data, _G711[coding]))]

    def _commit(self, event_id: str | None) -> Sequence[Action]:
        stream = self._stream
        seconds = stream.seconds(stream.bytes - stream.committed)
        if seconds < MIN_COMMIT_SECONDS:
            return [Say(empty_commit(self._events, seconds, event_id))]
        begin, stream.committed = stream.committed, stream.bytes
        if stream.turns:
            self._items.commit_turn(event_id)
            return [Commit()]
        events = self._items.commit(stream.seconds(begin), stream.seconds(stream.bytes))
        return [*map(Say, events), Commit()]

    def _clear(self) -> Sequence[Action]:
        cleared = Say(self._events.cleared())
        stream = self._stream
        if not stream.open:
            return [cleared]
        stream.committed = stream.bytes
        self._items.clear(stream.turns)
        # The answer to the commit shows that the worker has dropped the audio.
        return [cleared, Clear(), Commit()]

    def _update(
        self, event: dict[str, Any], event_id: str | None, *, older: bool
    ) -> Sequence[Action]:
        session = event.get("session")
        if not isinstance(session, dict):
            message = "session must be an object"
            return [self._error("invalid_type", message, "session", event_id)]
        try:
            config = updated(self._config, session, self._node)
        except ConfigError as error:
            return [self._error(error.code, error.message, error.param, event_id)]
        before, self._config = self._config, config
        self._events.older = older or self._beta
        self._items.partials = config.partials
        self._items.logprobs = config.logprobs
        actions: list[Action] = [self._session("updated", older)]
        if self._stream.open and config != before:
            actions.append(self._change(before))
        return actions

    def _change(self, before: Config) -> Action:
        """Return the action with which the stream follows a change of the configuration."""
        config = self._config
        if _of_stream(config) != _of_stream(before):
            return EndStream()
        return Configure(
            live_options(config.turns),
            language=config.language or self._node.language,
            prompt=config.whole_prompt,
        )

    # The stream's end.

    def _ended(self, outcome: Streamed | Failure) -> Sequence[Say | Leave]:
        stream, self._stream = self._stream, _Stream()
        failure = outcome if isinstance(outcome, Failure) else None
        events = self._items.end(stream.seconds(stream.bytes), failure)
        if failure is not None:
            server = failure.code != BAD_FIELD
            events.append(self._events.error(failure.code, failure.message, server=server))
        return [Say(event) for event in events]

    def _session(self, verb: str, older_name: bool) -> Say:
        session = session_json(self._config, self._id, self._node, older=self._events.older)
        return Say(self._events.session(verb, session, older_name))

    def _error(
        self, code: str, message: str, param: str | None = None, event_id: str | None = None
    ) -> Say:
        return Say(self._events.error(code, message, param, event_id))


def _of_stream(config: Config) -> tuple[object, ...]:
    """Return the values that cannot change within a stream."""
    return config.format, config.languages, config.logprobs, config.turns is None


def _marks(text: str) -> int:
    """Return the number of values that an event can have at most."""
    return text.count("[") + text.count("{") + text.count(",")
