"""The events that the node sends, as JSON in the shapes of OpenAI's API reference (realtime).

Pure, but for the numbers of the events. Loop thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.messages import TextToken
from app.protocols.logprobs import logprobs_json

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_BUFFER = "input_audio_buffer"


class Events:
    """Makes the events of one session. With `older` it uses the names of the API's beta."""

    def __init__(self, session: str, older: bool) -> None:
        self._session = session
        self._number = 0
        self.older = older

    def session(self, verb: str, session: dict[str, Any], older_name: bool) -> str:
        """The session was `created` or `updated`."""
        name = "transcription_session" if older_name else "session"
        return self._event(f"{name}.{verb}", session=session)

    def speech_started(self, item: str, seconds: float) -> str:
        return self._event(
            f"{_BUFFER}.speech_started", audio_start_ms=round(seconds * 1000), item_id=item
        )

    def speech_stopped(self, item: str, seconds: float) -> str:
        return self._event(
            f"{_BUFFER}.speech_stopped", audio_end_ms=round(seconds * 1000), item_id=item
        )

    def committed(self, item: str, previous: str | None) -> list[str]:
        """The audio of `item` is complete, and the item is part of the conversation."""
        committed = self._event(f"{_BUFFER}.committed", previous_item_id=previous, item_id=item)
        names = ("created",) if self.older else ("added", "done")
        added = [
            self._event(
                f"conversation.item.{name}", previous_item_id=previous, item=_item_json(item)
            )
            for name in names
        ]
        return [committed, *added]

    def cleared(self) -> str:
        return self._event(f"{_BUFFER}.cleared")

    def delta(self, item: str, text: str, tokens: Sequence[TextToken] | None = None) -> str:
        """Further text of `item`; the deltas joined are its text so far."""
        return self._event(
            f"{_TRANSCRIPTION}.delta",
            item_id=item,
            content_index=0,
            delta=text,
            **_logprobs(tokens),
        )

    def partial(self, item: str, stable: str, rest: str) -> str:
        """All text of `item` so far; `rest` may change. Not an event of OpenAI's."""
        return self._event(
            f"{_TRANSCRIPTION}.partial", item_id=item, content_index=0, stable=stable, rest=rest
        )

    def completed(
        self,
        item: str,
        text: str,
        seconds: float,
        confidence: float | None = None,
        tokens: Sequence[TextToken] | None = None,
    ) -> str:
        """The text of `item`, which took `seconds` of audio. A `confidence` is not OpenAI's."""
        more = {} if confidence is None else {"confidence": round(confidence, 4)}
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        return self._event(
            f"{_TRANSCRIPTION}.completed",
            item_id=item,
            content_index=0,
            transcript=text,
            usage=usage,
            **more,
            **_logprobs(tokens),
        )

    def failed(self, item: str, code: str, message: str) -> str:
        """`item` has no text."""
        error = {"type": "server_error", "code": code, "message": message, "param": None}
        return self._event(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=0, error=error)

    def error(
        self,
        code: str,
        message: str,
        param: str | None = None,
        event_id: str | None = None,
        *,
        server: bool = False,
    ) -> str:
        """The client's event `event_id` was refused, or the node failed."""
        error = {
            "type": "server_error" if server else "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
            "event_id": event_id,
        }
        return self._event("error", error=error)

    def _event(self, kind: str, **fields: Any) -> str:
        self._number += 1
        event = {"type": kind, "event_id": f"event_{self._session}_{self._number}", **fields}
        return json.dumps(event, ensure_ascii=False)


def _logprobs(tokens: Sequence[TextToken] | None) -> dict[str, Any]:
    return {} if tokens is None else {"logprobs": logprobs_json(tokens)}


def _item_json(item: str) -> dict[str, Any]:
    return {
        "id": item,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
