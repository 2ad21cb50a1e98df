"""The thread that owns the disk: the journal, large bodies, and the lines on stdout.

What can wait for a medium runs here, so that neither the sockets nor the engine ever do. Tasks are
functions, run one at a time in the order they were handed in; what each returned, or the error it
ended with, comes back to the loop thread as a completion, announced by `wake` and swapped out whole
under one lock. Beside the tasks the thread serves one output, stdout: written only as far as the
kernel says it takes bytes, so that a reader who has stopped holds up no task.

`submit`, `nudge` and `backlog` may be used from any thread; `take_completions` is the loop's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol as Interface
from typing import TypeVar

import structlog

_log = structlog.get_logger("disk")

Result = TypeVar("Result")
Completion = Callable[[], None]


class Output(Interface):
    """What is written out beside the tasks; all but `wants_write` on the disk thread."""

    def fileno(self) -> int: ...

    def wants_write(self) -> bool:
        """Whether there is something to write. From any thread."""

    def pause(self) -> float:
        """Seconds for which it is not to be tried, though it wants to."""

    def write_some(self) -> None:
        """Write once, no more than a descriptor that is ready takes without waiting."""


class Disk:
    """Runs tasks and serves `output`; `wake` is called whenever there are completions."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._output: Output | None = None
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], Completion | None]] = deque()
        self._completions: list[Completion] = []
        self._closing = False
        self._abandoned = False
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self.failed = False
        """True once the thread has ended by a fault of its own."""
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def serve(self, output: Output) -> None:
        """The one output; said before `start`."""
        self._output = output

    def start(self) -> None:
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Tasks that have not begun."""
        return len(self._tasks)

    def submit(
        self,
        task: Callable[[], Result],
        done: Callable[[Result | Exception], None] | None = None,
    ) -> None:
        """Run `task` after those before it; then `done`, on the loop, with what came of it.

        An `OSError` is an answer like any other. Without `done` it is only logged.
        """

        def run() -> Completion | None:
            result = _outcome(task, silent=done is not None)
            return None if done is None else lambda: done(result)

        with self._lock:
            self._tasks.append(run)
        self.nudge()

    def take_completions(self) -> list[Completion]:
        """What is to be called now, on the loop, in the order the tasks ran."""
        with self._lock:
            completions, self._completions = self._completions, []
        return completions

    def nudge(self) -> None:
        """Let the thread look again: there is a task, or something to write."""
        # Under the lock, because the number of a closed descriptor is soon somebody else's.
        with self._lock:
            if self._writer >= 0:
                # A full pipe means that it is awake already.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"\0")

    def close(self, seconds: float) -> bool:
        """Do what was handed in and write what there is, for at most `seconds`; whether all was
        done. What is handed in later is not."""
        self._closing = True
        self.nudge()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._abandoned = True
            self.nudge()
            return False
        return not self.failed

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            # Not a task's fault, those are caught: nothing could be accepted or told any more.
            _log.critical("the disk thread has failed", exc_info=True)
            self.failed = True
            self._wake()
        finally:
            with self._lock:
                os.close(self._writer)
                self._writer = -1
            os.close(self._reader)

    def _turn(self) -> bool:
        """One look at everything: a piece of output if it can go, one task. False at the end."""
        writing = self._output is not None and self._output.wants_write()
        with self._lock:
            task = self._tasks.popleft() if self._tasks else None
        if task is None and self._closing and (not writing or self._abandoned):
            return False
        pause = self._output.pause() if writing and self._output is not None else 0.0
        longest = 0.0 if task is not None else pause or None
        if self._is_ready(writing and not pause, longest) and self._output is not None:
            self._output.write_some()
        if task is not None and (completion := task()) is not None:
            with self._lock:
                self._completions.append(completion)
            self._wake()
        return True

    def _is_ready(self, writing: bool, longest: float | None) -> bool:
        """Whether output can go. Sleeps until it can or somebody nudges, for `longest` seconds."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if writing and self._output is not None:
            poll.register(self._output.fileno(), select.POLLOUT)
        ready = {
            descriptor for descriptor, _ in poll.poll(None if longest is None else 1000 * longest)
        }
        if self._reader in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 65_536)
        return bool(ready - {self._reader})


def _outcome(task: Callable[[], Result], silent: bool) -> Result | Exception:
    try:
        return task()
    except OSError as error:
        if not silent:
            _log.error("the disk refused", error=str(error))
        return error
    except Exception as error:
        # A bug in one task is not the end of the others.
        _log.exception("a task failed")
        return OSError(errno.EIO, f"{type(error).__name__} within the node")
