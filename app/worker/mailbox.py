"""The exchange of the loop thread and the worker's threads.

Both sides hold the lock only to append to a list or to swap it. Mail for the worker is one list, so
that its order is the order in which the loop sent it: a cancellation does not concern what comes
after it, and a stream's `Commit` comes after the audio before it. A thread without work sleeps on a
condition. One of them at a time receives the mail; the others wait for a nudge. Any thread, except
where a method says which.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from app.worker.completions import Completion
from app.worker.job import Job
from app.worker.live.job import Audio, LiveJob, LiveMail

_WAKING_BYTES = 1024
"""Audio of one job for which the worker wakes up: 32 ms of the usual format. A wake-up for each
packet of 10 ms would cost more than hearing it."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop what has not begun of a job, or a live job."""

    number: int


Mail = Job | LiveJob | LiveMail | Cancel


class Mailbox:
    """The mail of one worker, and its completions."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._condition = threading.Condition(lock)
        """Notified for the thread that receives the mail."""
        self._nudged = threading.Condition(lock)
        """Notified for the other threads that sleep."""
        self.nudges = 0
        """Number of nudges so far."""
        self._mail: list[Mail] = []
        self._untaken: dict[int, int] = {}
        """Bytes of audio in the mail, by job."""
        self._completions: list[Completion] = []
        self._stopping = False

    def put(self, mail: Mail) -> None:
        """Send mail to the worker."""
        with self._condition:
            self._mail.append(mail)
            self._condition.notify()

    def put_audio(self, mail: Audio) -> None:
        """Send audio, which need not wake the worker before there is more of it."""
        with self._condition:
            self._mail.append(mail)
            size = self._untaken.get(mail.number, 0) + len(mail.data)
            self._untaken[mail.number] = size
            if size >= _WAKING_BYTES:
                self._condition.notify()

    def stop(self) -> None:
        """Tell the worker to end."""
        with self._condition:
            self._stopping = True
            self.nudges += 1
            self._condition.notify_all()
            self._nudged.notify_all()

    def take_completions(self) -> list[Completion]:
        """Everything that was completed since the last call, in order. Loop thread."""
        with self._condition:
            completions, self._completions = self._completions, []
        return completions

    def complete(self, completions: list[Completion]) -> None:
        """Send completions to the loop; the caller wakes it afterwards. A thread of the worker."""
        with self._condition:
            self._completions += completions

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not (self._mail or self._stopping)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker must end."""
        return self._stopping

    def take(self) -> tuple[list[Mail], bool]:
        """Return all mail in order, and whether the worker must end. Under the worker's lock, so
        that mail is processed in the order in which it is taken."""
        with self._condition:
            mail, self._mail = self._mail, []
            self._untaken.clear()
            return mail, self._stopping

    def nudge(self) -> None:
        """Wake all threads that sleep. Under the worker's lock, after a change of its state."""
        with self._condition:
            self.nudges += 1
            self._condition.notify_all()
            self._nudged.notify_all()

    def wait(self, nudges: int, receives: bool) -> None:
        """Sleep until there was a nudge after the first `nudges`, or, for the thread that
        `receives` the mail, until there is something to take. Without the worker's lock."""
        condition = self._condition if receives else self._nudged
        with condition:
            while self.nudges == nudges and not (receives and not self.is_empty):
                condition.wait()
