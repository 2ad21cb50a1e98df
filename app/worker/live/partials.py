"""The text of an utterance while it is spoken.

The open utterance is decoded as far as it goes, in a single attempt, and only while nothing else
waits for the engine. The words on which two successive results agree are stable. The last word is
hidden, because it may be half a word. A result that is not plausible is not shown. Partials change
neither the language nor the carried text of the job. Worker thread.
"""

from __future__ import annotations

import time

from app.audio.endpoint import Extent
from app.audio.samples import SAMPLE_RATE
from app.decoding.agreement import Agreement, words_of
from app.live import Partial
from app.worker.live.live_audio import LiveAudio
from app.worker.window_decoder import WindowDecoder

_FIRST_SECONDS = 0.6
_STEP_SECONDS = 0.6
"""Seconds of speech before the first partial of an utterance, and between two."""

_TIMES_ITS_OWN = 3.0
"""Times the duration of a decode that pass before the next one of the same utterance begins, so
that partials of one stream take a third of the engine's time at most."""

_PAUSE_SECONDS = 0.1
"""After a longer pause the utterance may be complete soon, and the decode of its beginning would
delay that of the whole."""


class Partials:
    """The partials of one stream with this `audio`."""

    def __init__(self, audio: LiveAudio) -> None:
        self._audio = audio
        self._start = -1
        """Start of the utterance that the following is about."""
        self._agreement = Agreement()
        self._language: str | None = None
        self._next_at = 0.0
        """Seconds of the stream from which on the next decode may begin."""
        self._shown = Partial("", "")

    @property
    def is_due(self) -> bool:
        """Whether the open utterance may be decoded now, as far as it goes."""
        extent = self._audio.extent
        if extent is None:
            return False
        now = self._audio.position
        first = extent.speech_start + _FIRST_SECONDS * SAMPLE_RATE
        least = first if extent.start != self._start else max(first, self._next_at * SAMPLE_RATE)
        return now >= least and now - extent.speech_end < _PAUSE_SECONDS * SAMPLE_RATE

    def turn(self, decoder: WindowDecoder) -> Partial | None:
        """Decode the open utterance so far with a `decoder` of its own. Return the partial, or None
        if it is not different from the last. Raises `EngineError` and `EngineAborted`."""
        extent = self._audio.extent
        assert extent is not None
        began = time.monotonic()
        end = self._audio.position
        so_far = Extent(extent.start, end, extent.speech_start, extent.speech_end)
        hypothesis = decoder.decode_partial(self._audio.samples(so_far), self._language_of(extent))
        seconds = max(_STEP_SECONDS, _TIMES_ITS_OWN * (time.monotonic() - began))
        self._next_at = end / SAMPLE_RATE + seconds
        if not hypothesis.spoken:
            return None
        self._language = hypothesis.language
        return self._show(words_of(hypothesis.text, hypothesis.language)[:-1])

    def take(self, extent: Extent, text: str, language: str | None) -> Partial | None:
        """Take the text of a speculation on the open utterance, in which its speaker pauses. Return
        the partial as `turn` does."""
        self._language_of(extent)
        return self._show(words_of(text, language or "en")) if text else None

    def _language_of(self, extent: Extent) -> str | None:
        """Begin with another utterance if it is one; return its language if that is known."""
        if extent.start != self._start:
            self._start = extent.start
            self._agreement = Agreement()
            self._language = None
            self._shown = Partial("", "")
        return self._language

    def _show(self, words: list[str]) -> Partial | None:
        rest = self._agreement.update(words)
        before, self._shown = self._shown, Partial(self._agreement.stable, rest)
        return None if self._shown == before else self._shown
