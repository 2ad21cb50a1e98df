"""What live audio has done so far, for the metrics.

The worker counts; any thread may read the last `LiveCounts`, which is frozen and replaced as a
whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """Counts since the start, and two present values."""

    jobs: int = 0
    """Live jobs that are heard now: streams, and commands whose audio still arrives."""
    utterances: int = 0
    """Streams with an utterance in progress; each takes a place of `--max-live`."""
    speculations_used: int = 0
    """Utterances whose text was known, or being decoded, when they were complete."""
    speculations_wasted: int = 0
    finals: int = 0
    """Utterances that were completed and decoded."""
    final_seconds: float = 0.0
    """Sum of the seconds from the completion of an utterance to its result."""
    partials: int = 0
    """Partials that were sent to the loop."""
    lag_seconds: float = 0.0
    """Most audio of one live job that is complete or received, and has no result yet."""


class Counter:
    """Keeps the counts. Worker thread, but for reading `counts`."""

    def __init__(self) -> None:
        self.counts = LiveCounts()

    def note_wasted(self) -> None:
        counts = self.counts
        self.counts = replace(counts, speculations_wasted=counts.speculations_wasted + 1)

    def note_final(self, seconds: float, was_used: bool) -> None:
        """Count a result that came `seconds` after its utterance was complete; `was_used` if a
        speculation gave it."""
        counts = self.counts
        self.counts = replace(
            counts,
            finals=counts.finals + 1,
            final_seconds=counts.final_seconds + seconds,
            speculations_used=counts.speculations_used + was_used,
        )

    def note_partials(self, count: int) -> None:
        if count:
            self.counts = replace(self.counts, partials=self.counts.partials + count)

    def note_now(self, jobs: int, utterances: int, lag_seconds: float) -> None:
        """Set the present values."""
        now = (jobs, utterances, lag_seconds)
        counts = self.counts
        if now != (counts.jobs, counts.utterances, counts.lag_seconds):
            self.counts = replace(counts, jobs=jobs, utterances=utterances, lag_seconds=lag_seconds)
