"""The loop's side of a worker: it hands over jobs and audio, and takes completions.

Every method returns at once. Loop thread.
"""

from __future__ import annotations

import time

from app.live import Clear, Commit, Configure
from app.worker.completions import Completion
from app.worker.job import Job
from app.worker.live.job import Audio, AudioEnd, Control, LiveJob
from app.worker.mailbox import Cancel, Mailbox


class Front:
    """Sends the mail of a worker."""

    def __init__(self) -> None:
        self._mailbox = Mailbox()

    def submit(self, job: Job) -> None:
        """Hand over a job. Its outcome will be among the completions. If it is a command that is
        heard already, all its audio must have been fed."""
        self._mailbox.put(job)

    def listen(self, job: LiveJob) -> None:
        """Hear a stream or a command while its audio arrives by `feed`."""
        self._mailbox.put(job)

    def feed(self, number: int, data: bytes) -> None:
        """Hand over the next bytes of a live job's audio, split anywhere."""
        self._mailbox.put_audio(Audio(number, data, time.monotonic()))

    def end(self, number: int) -> None:
        """State that a stream's audio is over; its outcome follows."""
        self._mailbox.put(AudioEnd(number, time.monotonic()))

    def interrupt(self, number: int) -> None:
        """End a stream because the node stops; its outcome is `truncated`."""
        self._mailbox.put(AudioEnd(number, time.monotonic(), truncated=True))

    def commit(self, number: int) -> None:
        """Complete the open utterance of a stream; `Committed` follows."""
        self._mailbox.put(Control(number, Commit(), time.monotonic()))

    def clear(self, number: int) -> None:
        """Drop the open utterance of a stream."""
        self._mailbox.put(Control(number, Clear(), time.monotonic()))

    def configure(self, number: int, event: Configure) -> None:
        """Set the options of the utterances of a stream that begin from now on."""
        self._mailbox.put(Control(number, event, time.monotonic()))

    def cancel(self, number: int) -> None:
        """Drop what has not begun of a job; it ends with the failure `cancelled` soon after. Of a
        command without its `Job` only the early state is dropped, and nothing follows."""
        self._mailbox.put(Cancel(number))

    def take_completions(self) -> list[Completion]:
        """Everything that became ready since the last call, in order."""
        return self._mailbox.take_completions()

    def stop(self) -> None:
        """Begin no further window; every unfinished job ends with `shutting_down`."""
        self._mailbox.stop()
