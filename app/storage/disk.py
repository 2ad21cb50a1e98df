"""The disk thread: everything that writes to disk, and the lines on stdout.

Neither the sockets nor the engine wait for a medium, because these writes run here. Tasks are
functions, run one at a time in the order of `submit`. The result of each, or its error, returns to
the loop thread as a completion: `wake` announces it, and the loop takes all of them under one lock.
Beside the tasks the thread serves one output, stdout. It writes only as much as the kernel accepts
without waiting, so that a stalled reader delays no task.

`submit`, `nudge` and `backlog` may be used from any thread; `take_completions` by the loop only.
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
    """Stdout, as the disk thread uses it; any thread may call `wants_write`."""

    def fileno(self) -> int: ...

    def wants_write(self) -> bool:
        """Return whether there is something to write."""

    def pause(self) -> float:
        """Return the seconds until the next try, 0 for at once."""

    def write_some(self) -> None:
        """Write once, no more than a ready descriptor accepts without waiting."""


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
        """True once the thread has ended by an unexpected error."""
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def serve(self, output: Output) -> None:
        """Set the one output; call it before `start`."""
        self._output = output

    def start(self) -> None:
        self._thread.start()

    @property
    def backlog(self) -> int:
        """The number of tasks that have not begun."""
        return len(self._tasks)

    def submit(
        self,
        task: Callable[[], Result],
        done: Callable[[Result | Exception], None] | None = None,
    ) -> None:
        """Run `task` after the earlier ones; then call `done`, on the loop, with its result.

        An `OSError` is passed to `done` like a result. Without `done` it is only logged.
        """

        def run() -> Completion | None:
            result = _outcome(task, silent=done is not None)
            return None if done is None else lambda: done(result)

        with self._lock:
            self._tasks.append(run)
        self.nudge()

    def take_completions(self) -> list[Completion]:
        """Return the completions to call now, on the loop, in the order of the tasks."""
        with self._lock:
            completions, self._completions = self._completions, []
        return completions

    def nudge(self) -> None:
        """Wake the thread: there is a task, or something to write."""
        # Under the lock, because the number of a closed descriptor is soon used again.
        with self._lock:
            if self._writer >= 0:
                # A full pipe means that the thread is awake already.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"\0")

    def close(self, seconds: float) -> bool:
        """Finish the tasks and the output within `seconds`; whether all was done. Tasks submitted
        later are not run."""
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
            # Errors of tasks are caught, so this is a bug. The node needs the thread.
            _log.critical("the disk thread has failed", exc_info=True)
            self.failed = True
            self._wake()
        finally:
            with self._lock:
                os.close(self._writer)
                self._writer = -1
            os.close(self._reader)

    def _turn(self) -> bool:
        """Write a piece of output if the kernel accepts it, and run one task. False at the end."""
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
        """Return whether output can be written. Sleeps until it can or `nudge` is called, at most
        `longest` seconds."""
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
            _log.error("a disk task failed", error=str(error))
        return error
    except Exception as error:
        # A bug in one task must not stop the others.
        _log.exception("a disk task has a bug")
        return OSError(errno.EIO, f"{type(error).__name__} in a disk task")
