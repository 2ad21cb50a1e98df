"""The utterances of one live job that are not final yet, and what has to be decoded for them.

Complete utterances wait in order. When the speaker of the open one pauses, it is decoded as if it
were complete: a *speculation*. Its hypothesis is the final result if the end of speech does not
move, because an extent depends on the end of speech alone. Otherwise it is wasted. So there is at
most one attempt, for the first waiting utterance or for the open one. Pure but for the engine
behind `WindowDecoder`; worker thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from app.audio.endpoint import Extent
from app.audio.samples import SAMPLE_RATE, Samples
from app.messages import Request, Segment
from app.worker.live.attempt import Attempt
from app.worker.live.live_audio import LiveAudio
from app.worker.window_decoder import WindowDecoder

MOST_WASTED = 3
"""Most speculations of one utterance; later pauses are not decoded before it is complete."""


_CARRY_SECONDS = 0.6
"""Longest pause after which the text of the utterance before is carried over, mostly after a cut in
long speech. After a longer one it does more harm than good (docs/lab-book.md, "Live audio")."""


class Due(Enum):
    """The kind of the next decode."""

    FINAL = "final"
    SPECULATION = "speculation"


@dataclass(frozen=True, slots=True)
class Final:
    """A complete utterance that was decoded. `language` is None if it has no words and the language
    is not known."""

    extent: Extent
    segments: tuple[Segment, ...]
    language: str | None
    complete_at: float
    """`time.monotonic()` when the audio that completed it arrived."""
    was_ready: bool
    """Whether a speculation had decoded it by then, or was about to."""


@dataclass(slots=True)
class _Waiting:
    extent: Extent
    request: Request
    complete_at: float
    was_ready: bool


class Utterances:
    """The utterances of a job with `request` in its `audio`. `decoder` continues from one to the
    next; `begin` makes an attempt with a decoder of its own; `on_wasted` is called for each
    speculation that is dropped."""

    def __init__(
        self,
        request: Request,
        audio: LiveAudio,
        decoder: WindowDecoder,
        begin: Callable[[Extent, Samples, WindowDecoder], Attempt],
        on_wasted: Callable[[], None],
    ) -> None:
        self._audio = audio
        self.decoder = decoder
        self._begin = begin
        self._on_wasted = on_wasted
        self._waiting: deque[_Waiting] = deque()
        self._request = request
        """The request of the open utterance, or of the next if none is open."""
        self._paused: Extent | None = None
        """The open utterance while its speaker pauses."""
        self._attempt: Attempt | None = None
        self._speculations = 0
        """Number of speculations of the open utterance."""
        self._spoken_until = 0
        """End of the speech of the last utterance with a result."""

    @property
    def waiting(self) -> int:
        """Number of complete utterances without a result."""
        return len(self._waiting)

    @property
    def waiting_seconds(self) -> float:
        """Seconds of audio of the complete utterances without a result."""
        return sum(entry.extent.end - entry.extent.start for entry in self._waiting) / SAMPLE_RATE

    @property
    def is_decoding(self) -> bool:
        """Whether the first waiting utterance is already decoded, wholly or partly."""
        return bool(self._waiting) and self._matches(self._waiting[0].extent)

    @property
    def due(self) -> Due | None:
        """The next decode, or None if there is nothing to decode. Call `take` before."""
        if self._waiting:
            return Due.FINAL
        if self._paused is None:
            return None
        if self._matches(self._paused):
            return None if self._is_done else Due.SPECULATION
        return Due.SPECULATION if self._speculations < MOST_WASTED else None

    @property
    def due_seconds(self) -> float:
        """Seconds of audio of the next decode."""
        extent = self._next()
        return 0.0 if extent is None else (extent.end - extent.start) / SAMPLE_RATE

    @property
    def guess(self) -> Attempt | None:
        """The speculation on the open utterance, once it is decoded."""
        return self._attempt if self._is_done and not self._waiting else None

    def fork(self) -> WindowDecoder:
        """Return a decoder for the open utterance so far."""
        return self.decoder.fork(self._request, carries=False)

    def open(self, request: Request) -> None:
        """Begin an utterance; it is decoded as `request` says."""
        self._request = request

    def follow(self) -> None:
        """Take the open utterance as it is now: complete unless its speaker goes on, or not."""
        self._paused = self._audio.paused
        is_speculation = self._attempt is not None and not self._waiting
        if is_speculation and (self._paused is None or not self._matches(self._paused)):
            self._drop()

    def complete(self, extent: Extent, at: float) -> None:
        """Add the open utterance, completed by audio that arrived `at` (`time.monotonic()`)."""
        if not self._waiting and self._attempt is not None and not self._matches(extent):
            self._drop()
        was_ready = not self._waiting and self._matches(extent)
        self._waiting.append(_Waiting(extent, self._request, at, was_ready))
        self._paused = None
        self._speculations = 0

    def clear(self) -> None:
        """Drop the open utterance, which the audio has dropped already."""
        self.follow()
        self._speculations = 0

    def give_up(self) -> None:
        """Drop everything."""
        self._waiting.clear()
        self._paused = None
        if self._attempt is not None:
            self._drop()

    def turn(self) -> None:
        """Decode the next window. Raises `EngineError` and `EngineAborted`."""
        extent = self._next()
        assert extent is not None
        if not self._matches(extent):
            request = self._waiting[0].request if self._waiting else self._request
            self._speculations += not self._waiting
            carries = extent.speech_start - self._spoken_until <= _CARRY_SECONDS * SAMPLE_RATE
            self._attempt = self._begin(
                extent, self._audio.samples(extent), self.decoder.fork(request, carries)
            )
        assert self._attempt is not None
        self._attempt.turn()

    def take(self) -> list[Final]:
        """Remove and return the complete utterances that are decoded, in order."""
        finals = []
        while self._waiting and self._is_done and self._matches(self._waiting[0].extent):
            attempt = self._attempt
            assert attempt is not None
            entry = self._waiting.popleft()
            self._audio.release(entry.extent)
            self._spoken_until = entry.extent.speech_end
            self.decoder, self._attempt = attempt.decoder, None
            finals.append(
                Final(
                    attempt.extent,
                    tuple(attempt.segments),
                    attempt.decoder.language.last,
                    entry.complete_at,
                    entry.was_ready,
                )
            )
        return finals

    @property
    def _is_done(self) -> bool:
        return self._attempt is not None and self._attempt.done

    def _next(self) -> Extent | None:
        return self._waiting[0].extent if self._waiting else self._paused

    def _matches(self, extent: Extent) -> bool:
        return self._attempt is not None and self._attempt.extent == extent

    def _drop(self) -> None:
        self._attempt = None
        self._on_wasted()
