"""The protocol of vosk-server as a dialogue over WebSocket.

Binary messages are samples, and each gets exactly one reply at once: the oldest finished utterance
that was not sent, or the text of the open one. A reply never waits for the worker, because clients
send and receive in lock-step. Text messages are `config` (no reply), `reset` and `eof`, whose
replies have all text that was not sent. Loop thread.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

from app.live import Commit, Committed, LiveOptions, Partial
from app.messages import BAD_FIELD, Failure, RawFormat, Reply, Request, Segment, Streamed, Utterance
from app.protocols.vosk.messages import Options, partial_json, read_options, result_json
from app.protocols.websocket.dialogue import Action, Audio, EndStream, Leave, Say
from app.protocols.websocket.frames import FAULT, INVALID_DATA, NORMAL, POLICY

MAX_TEXT = 65_536
"""Characters of a text message."""

END_PAUSE = 0.5
"""Seconds of silence that end an utterance, as in Kaldi's second endpoint rule."""


class VoskDialogue:
    """A session as a `Dialogue`."""

    def __init__(self) -> None:
        self._options = Options()
        self._streaming = False
        self._partial = ""
        self._finished: deque[Utterance] = deque()
        """Utterances that were not sent."""
        self._resets = 0
        """`reset` messages without a reply."""
        self._ends = False
        """An `eof` was received."""

    def greeting(self) -> Sequence[Action]:
        return ()

    def on_text(self, text: str) -> Sequence[Action]:
        try:
            message = json.loads(text) if len(text) <= MAX_TEXT else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            reason = f"a text message must be a JSON object of at most {MAX_TEXT} characters"
            return [Leave(INVALID_DATA, reason)]
        if isinstance(config := message.get("config"), dict):
            return self._configure(config)
        if "eof" in message:
            self._ends = True
            return [EndStream()] if self._streaming else self._final()
        if "reset" in message:
            if not self._streaming:
                return [Say(self._all())]
            self._resets += 1
            return [Commit()]
        return ()

    def on_binary(self, data: bytes, ended: bool) -> Sequence[Action]:
        # The reply is that before these samples: the first ones may wait for a place.
        reply = [Say(self._next())] if ended else []
        self._streaming = self._streaming or bool(data)
        return [*reply, Audio(data)]

    def request(self, request_id: str) -> Request:
        return Request(
            id=request_id,
            content_length=None,
            raw=RawFormat("s16", self._options.rate, 1, "little"),
            prompt=self._options.prompt,
            word_timestamps=self._options.words,
            reply="segments",
            keep_alive=True,
            live=LiveOptions(end_pause=END_PAUSE, partials=True),
        )

    def on_reply(self, reply: Reply) -> Sequence[Say | Leave]:
        if isinstance(reply, Partial):
            self._partial = reply.stable + reply.rest
        elif isinstance(reply, Utterance):
            self._partial = ""
            if any(segment.text for segment in reply.segments):
                self._finished.append(reply)
        elif isinstance(reply, Committed):
            if self._resets:
                self._resets -= 1
                return [Say(self._all())]
        elif isinstance(reply, Streamed):
            self._streaming = False
            return self._final() if self._ends else ()
        elif isinstance(reply, Failure):
            # The protocol has no message for a failure.
            self._streaming = False
            return [Leave(POLICY if reply.code == BAD_FIELD else FAULT, reply.message)]
        return ()

    def _configure(self, config: dict[str, object]) -> Sequence[Action]:
        try:
            options = read_options(config, self._options)
        except ValueError as error:
            return [Leave(POLICY, str(error))]
        changed, self._options = options != self._options, options
        return [EndStream()] if changed and self._streaming else ()

    def _next(self) -> str:
        """Return the reply to samples."""
        if self._finished:
            return result_json(self._finished.popleft().segments, self._options)
        return partial_json(self._partial)

    def _all(self) -> str:
        """Return all text that was not sent as one result."""
        segments: list[Segment] = []
        while self._finished:
            segments += self._finished.popleft().segments
        self._partial = ""
        return result_json(segments, self._options)

    def _final(self) -> list[Say | Leave]:
        return [Say(self._all()), Leave(NORMAL)]
