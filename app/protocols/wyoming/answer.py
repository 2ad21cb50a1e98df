"""The answer to one transcription: its text whole, or in parts as each is final.

Without streaming it is a `transcript`. With streaming a `transcript-start` comes before the first
part, each part is a `transcript-chunk`, and `transcript-stop` follows the whole. Loop thread.
"""

from __future__ import annotations

from app.messages import Segment, Streamed, Transcript, Utterance
from app.protocols.wyoming.events import write_event, write_start, write_transcript


class Answer:
    """One answer. `streaming` sends parts; `language` is that of the request, and `text_language`
    that of the text if it is a translation."""

    def __init__(self, streaming: bool, text_language: str | None) -> None:
        self._streaming = streaming
        self._text_language = text_language
        self._started = False
        self._texts: list[str] = []
        self.language: str | None = None

    def parts(self, reply: Segment | Utterance) -> bytes:
        """Encode the texts of a segment, or of an utterance."""
        segments = reply.segments if isinstance(reply, Utterance) else (reply,)
        return b"".join(self._part(segment.text) for segment in segments)

    def whole(self, outcome: Transcript | Streamed) -> bytes:
        """Encode the whole transcript; that of a stream is the sum of its parts."""
        if isinstance(outcome, Streamed):
            return self.end(" ".join(self._texts), outcome.language)
        return self.end(outcome.text, outcome.language, outcome.truncated)

    def end(self, text: str, language: str | None, truncated: bool = False) -> bytes:
        """Encode the last events."""
        events = write_transcript(text, self._text_language or language, truncated)
        if not self._streaming:
            return events
        return self._start() + events + write_event("transcript-stop")

    def _part(self, text: str) -> bytes:
        spaced = f" {text}" if self._texts else text
        self._texts.append(text)
        return self._start() + write_event("transcript-chunk", {"text": spaced})

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return write_start(self.language)
