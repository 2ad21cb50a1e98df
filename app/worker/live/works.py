"""The making of the work on a live job from its parts. Threads of the worker."""

from __future__ import annotations

import threading

from app.audio.endpoint import DEFAULT_THRESHOLD, Extent
from app.audio.listener import Listener
from app.audio.mix import SpeechTest
from app.audio.samples import Samples
from app.audio.vad import Detector
from app.decoding.transcriber import Transcriber
from app.live import LiveOptions
from app.worker.detectors import Detectors
from app.worker.job_settings import JobSettings
from app.worker.live.attempt import Attempt
from app.worker.live.command import Command
from app.worker.live.counters import Counter
from app.worker.live.job import LiveJob
from app.worker.live.live_audio import LiveAudio
from app.worker.live.places import Places
from app.worker.live.stream import Stream
from app.worker.live.utterances import Utterances
from app.worker.window_decoder import WindowDecoder

_COMMAND = LiveOptions(end_pause=None)
"""The options of commands: their end is that of the body."""

Work = Stream | Command


class Works:
    """Makes the works of one worker, and takes back what they borrowed."""

    def __init__(
        self,
        engine: Transcriber,
        detectors: Detectors,
        speaks: SpeechTest,
        settings: JobSettings,
        places: Places,
        counter: Counter,
    ) -> None:
        self._engine = engine
        self._detectors = detectors
        self._speaks = speaks
        self._settings = settings
        self._places = places
        self._counter = counter
        self._lent: dict[int, Detector] = {}
        self._for_rests: dict[int, Detector] = {}
        """The detector that all attempts on a thread share, by the thread's number."""

    def begin(self, job: LiveJob) -> Work:
        """Return the work on `job`. Raises what making a detector raises."""
        request, settings = job.request, self._settings
        options = request.live or _COMMAND
        detector = self._lent[job.number] = self._detectors.lend()
        listener = Listener(job.raw, detector, options, settings.vad_threshold, self._speaks)
        audio = LiveAudio(job, listener)
        threshold = options.threshold or settings.vad_threshold or DEFAULT_THRESHOLD

        def attempt(extent: Extent, samples: Samples, decoder: WindowDecoder) -> Attempt:
            return Attempt(extent, samples, decoder, self._detector_for_rests(), threshold)

        decoder = WindowDecoder(request, self._engine, settings)
        utterances = Utterances(request, audio, decoder, attempt, self._counter.note_wasted)
        if request.live is None:
            return Command(job, audio, utterances, settings)
        return Stream(job, audio, utterances, self._places, settings)

    def end(self, number: int) -> None:
        """Take back what the work on a job has borrowed."""
        if (detector := self._lent.pop(number, None)) is not None:
            self._detectors.give_back(detector)

    def _detector_for_rests(self) -> Detector:
        thread = threading.get_ident()
        if thread not in self._for_rests:
            self._for_rests[thread] = self._detectors.lend()
        return self._for_rests[thread]
