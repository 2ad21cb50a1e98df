"""The decode of one utterance, window by window, on a copy of the job's decoder.

The first window is the whole utterance. If Whisper stops in its middle, the rest is searched for
speech and decoded again, as in a file. The attempt is dropped if the utterance turns out not to be
complete; otherwise its decoder continues the job. Worker thread.
"""

from __future__ import annotations

from app.audio.endpoint import Extent
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import Detector
from app.audio.windows import Window, Windower
from app.decoding.hypothesis import Hypothesis
from app.messages import Segment
from app.worker.window_decoder import WindowDecoder, resume_at


class Attempt:
    """The decode of the utterance `extent`, whose `samples` are float32, shape [n], 16 kHz, at most
    30 s; `decoder` is the attempt's own. `detector` searches the rests of windows, and
    may be shared by all attempts; `threshold` is that of a `Windower`."""

    def __init__(
        self,
        extent: Extent,
        samples: Samples,
        decoder: WindowDecoder,
        detector: Detector,
        threshold: float,
    ) -> None:
        self.extent = extent
        self.decoder = decoder
        self.segments: list[Segment] = []
        self._detector = detector
        self._threshold = threshold
        self._start = extent.start / SAMPLE_RATE
        self._window: Window | None = Window(self._start, samples)
        self._rest: Windower | None = None
        """Searches the rest of the first window, if that was not decoded as a whole."""

    @property
    def done(self) -> bool:
        return self._window is None

    def turn(self) -> None:
        """Decode the next window. Raises `EngineError` and `EngineAborted`."""
        window = self._window
        assert window is not None
        # The decoder found no words in a rest the first time, so it must be sure of them.
        hypothesis = self.decoder.decode(window.samples, only_sure=self._rest is not None)
        self.segments += self.decoder.accept(hypothesis, window)
        self._return_rest(window, hypothesis)
        self._window = self._next_window()

    def _return_rest(self, window: Window, hypothesis: Hypothesis) -> None:
        at = resume_at(hypothesis, len(window.samples) / SAMPLE_RATE)
        if at is None:
            return
        if self._rest is not None:
            self._rest.resume(at)
            return
        self._rest = Windower(self._detector, self._threshold, second_look=False)
        self._start += at
        self._rest.push(window.samples[round(at * SAMPLE_RATE) :])
        self._rest.end()

    def _next_window(self) -> Window | None:
        if self._rest is None:
            return None
        # Another attempt may have used the detector since.
        self._detector.reset()
        while not self._rest.exhausted:
            if (window := self._rest.next()) is not None:
                return Window(self._start + window.start, window.samples)
        return None
