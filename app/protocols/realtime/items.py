"""The items of a session: which utterances an item has, and how much of its text was sent.

With turn detection the worker's reports open and complete the items. Without it the client's
commits do, and an item joins the utterances before its commit. The worker answers commits in order,
so the first commit without an answer tells to which item an utterance belongs. For the same reason
a commit follows each `clear`. Pure state; loop thread.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from dataclasses import dataclass, field

from app.decoding.text_tokens import fitted, led, length_of
from app.live import Committed, LiveReport, Partial, SpeechBegan, SpeechEnded
from app.messages import Failure, TextToken, Utterance
from app.protocols.logprobs import joined
from app.protocols.realtime.events import Events

COMMIT_EMPTY = "input_audio_buffer_commit_empty"
"""OpenAI's code for a commit without audio."""

MIN_COMMIT_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class _Item:
    """One item. `begin` and `end` are the limits of its audio in seconds of the stream."""

    id: str
    begin: float = 0.0
    end: float = 0.0
    texts: list[str] = field(default_factory=list)
    """The texts of its utterances, which are final."""
    confidences: list[float] = field(default_factory=list)
    """Those of its segments, 0 to 1."""
    tokens: list[TextToken] = field(default_factory=list)
    """Those of its text, if they were requested."""
    sent: str = ""
    """The text of its deltas."""

    @property
    def text(self) -> str:
        return " ".join(text for text in self.texts if text)

    def add(self, utterance: Utterance) -> None:
        """Add an utterance, which is final."""
        words = text_of(utterance)
        if words:
            space = " " if self.text else ""
            self.tokens += led(joined(utterance.segments), space)
        self.texts.append(words)
        self.confidences += [segment.confidence for segment in utterance.segments]

    def with_partial(self, partial: Partial) -> tuple[str, str]:
        """Return the stable text and the rest, with `partial` as the last utterance's."""
        if not self.text:
            return partial.stable, partial.rest
        if partial.stable:
            return f"{self.text} {partial.stable}", partial.rest
        return self.text, f" {partial.rest}" if partial.rest else ""


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """A commit that the worker has not answered. `item` is what a client's commit completed; None
    without turn detection stands for a `clear`. With turn detection `committed` is the number of
    items before it, None for a `clear`, and `event_id` names the client's event."""

    item: _Item | None = None
    committed: int | None = None
    event_id: str | None = None


class Items:
    """The items of one session. Methods return the events to send."""

    def __init__(self, session: str, events: Events) -> None:
        self._session = session
        self._events = events
        self._numbers = itertools.count(1)
        self._previous: str | None = None
        self._committed = 0
        self._open: _Item | None = None
        """The item whose audio still grows."""
        self._ended: deque[_Item] = deque()
        """Items that the node completed, without their text."""
        self._marks: deque[_Mark] = deque()
        self.partials = False
        """The client also wants text that may change, and confidences."""
        self.logprobs = False
        """The client also wants the probabilities of the tokens."""
        self._before = 0.0
        """Seconds of audio in earlier streams of the session."""

    # The client's commits.

    def commit(self, begin: float, end: float) -> list[str]:
        """Complete the open item, whose audio lies between two positions, without turn
        detection."""
        item, self._open = self._open or self._new(), None
        item.begin, item.end = begin, end
        self._marks.append(_Mark(item))
        return self._commit(item)

    def commit_turn(self, event_id: str | None) -> None:
        """Note a client's commit although the node detects the turns."""
        self._marks.append(_Mark(committed=self._committed, event_id=event_id))

    def clear(self, turns: bool) -> None:
        """Drop the open item; `turns` with turn detection, where the worker does so first."""
        if not turns:
            self._open = None
        self._marks.append(_Mark())

    # The worker's reports.

    def report(self, report: LiveReport | Utterance, turns: bool) -> list[str]:
        """Take a report of a stream; `turns` if the node detects the turns in it."""
        if isinstance(report, Committed):
            return self._answered(turns)
        if turns:
            return self._turn(report)
        mark = self._marks[0] if self._marks else None
        if mark is not None and mark.item is None:
            return []  # audio that the client has cleared
        if isinstance(report, Partial):
            return self._partial(mark.item if mark and mark.item else self._growing(), report)
        if isinstance(report, Utterance):
            item = mark.item if mark and mark.item else self._growing()
            item.add(report)
            return self._advance(item, item.text, final=True)
        return []

    def end(self, seconds: float, failure: Failure | None) -> list[str]:
        """End the stream, which had `seconds` of audio. Items without their text have none, or fail
        with `failure`."""
        events: list[str] = []
        due = [*self._ended, *(mark.item for mark in self._marks if mark.item is not None)]
        for item in due:
            if failure is None:
                events += self._complete(item)
            else:
                events.append(self._events.failed(item.id, failure.code, failure.message))
        for mark in self._marks:
            if mark.committed is not None and failure is None:
                events += self._answer(mark)
        self._ended.clear()
        self._marks.clear()
        self._before += seconds
        return events

    def drop(self) -> None:
        """Forget the open item, because the way of committing changes."""
        self._open = None

    # With turn detection.

    def _turn(self, report: LiveReport | Utterance) -> list[str]:
        if isinstance(report, SpeechBegan):
            self._open = item = self._new()
            item.begin = report.at
            return [self._events.speech_started(item.id, self._before + report.at)]
        if isinstance(report, SpeechEnded):
            item, self._open = self._open or self._new(), None
            item.end = report.at
            self._ended.append(item)
            stopped = self._events.speech_stopped(item.id, self._before + report.at)
            return [stopped, *self._commit(item)]
        if isinstance(report, Partial):
            return [] if self._open is None else self._partial(self._open, report)
        assert isinstance(report, Utterance)
        return self._final(report)

    def _final(self, utterance: Utterance) -> list[str]:
        events: list[str] = []
        # Speech without words has no utterance, so an item that ends before this one is complete.
        while self._ended and self._ended[0].end <= utterance.start:
            events += self._complete(self._ended.popleft())
        if not self._ended:
            item, self._open = self._open or self._new(), None
            item.begin, item.end = item.begin or utterance.start, utterance.end
            events += self._commit(item)
            self._ended.append(item)
        item = self._ended.popleft()
        item.add(utterance)
        return events + self._advance(item, item.text, final=True) + self._complete(item)

    # Both.

    def _answered(self, turns: bool) -> list[str]:
        """The worker has answered the oldest commit."""
        mark = self._marks.popleft() if self._marks else _Mark()
        if not turns:
            return [] if mark.item is None else self._complete(mark.item)
        events: list[str] = []
        while self._ended:
            events += self._complete(self._ended.popleft())
        if mark.committed is None:
            self._open = None
        return events + self._answer(mark)

    def _answer(self, mark: _Mark) -> list[str]:
        """Refuse a client's commit if nothing was committed since."""
        if mark.committed is None or self._committed > mark.committed:
            return []
        return [empty_commit(self._events, 0.0, mark.event_id)]

    def _commit(self, item: _Item) -> list[str]:
        previous, self._previous = self._previous, item.id
        self._committed += 1
        return self._events.committed(item.id, previous)

    def _advance(self, item: _Item, text: str, final: bool = False) -> list[str]:
        """Send the part of `text` that was not sent. Deltas only grow: if the words differ from
        those that were sent, the item's last event corrects them. Only `final` text has tokens."""
        more = _beyond(item.sent, text)
        item.sent += more
        if not more:
            return []
        tokens = None
        if self.logprobs and final:
            places = range(length_of(text) - length_of(more), length_of(text))
            tokens = fitted(item.tokens, more, places)
        return [self._events.delta(item.id, more, tokens)]

    def _partial(self, item: _Item, partial: Partial) -> list[str]:
        stable, rest = item.with_partial(partial)
        events = self._advance(item, stable)
        if self.partials:
            events.append(self._events.partial(item.id, stable, rest))
        return events

    def _complete(self, item: _Item) -> list[str]:
        seconds = max(0.0, item.end - item.begin)
        known = item.confidences if self.partials else []
        confidence = sum(known) / len(known) if known else None
        tokens = item.tokens if self.logprobs else None
        return [self._events.completed(item.id, item.text, seconds, confidence, tokens)]

    def _growing(self) -> _Item:
        if self._open is None:
            self._open = self._new()
        return self._open

    def _new(self) -> _Item:
        return _Item(f"item_{self._session}_{next(self._numbers)}")


def _beyond(sent: str, text: str) -> str:
    """Return the end of `text` behind the words in `sent`; nothing if it has other words there.
    Case and punctuation do not count, because they often change as more is said."""
    if text.startswith(sent):
        return text[len(sent) :]
    before, words = sent.split(), list(re.finditer(r"\S+", text))
    if len(words) < len(before):
        return ""
    if any(_plain(old) != _plain(new[0]) for old, new in zip(before, words, strict=False)):
        return ""
    return text[words[len(before) - 1].end() :]


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word


def text_of(utterance: Utterance) -> str:
    """Return the text of an utterance."""
    return " ".join(segment.text for segment in utterance.segments if segment.text)


def empty_commit(events: Events, seconds: float, event_id: str | None) -> str:
    """Return the error for a commit of too little audio, in OpenAI's words."""
    message = (
        "Error committing input audio buffer: buffer too small. Expected at least"
        f" {MIN_COMMIT_SECONDS * 1000:.0f}ms of audio, but buffer only has"
        f" {seconds * 1000:.2f}ms of audio."
    )
    return events.error(COMMIT_EMPTY, message, event_id=event_id)
