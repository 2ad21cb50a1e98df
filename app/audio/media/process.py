"""One child process that decodes a file, from its start to its end.

The child shares two descriptors with the node: the body, opened again for reading only, and a pipe.
Its environment is empty, its session its own, so that neither Ctrl-C nor systemd's SIGTERM reaches
the work of accepted requests. It dies with the thread that started it. The node checks the child's
processor time and its own waiting time against the audio received so far. Worker thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import app
from app.audio.media import wire
from app.audio.media.confinement import IGNORED_SIGNALS

_BOOT = "import sys;sys.path.append({!r});from app.audio.media.child import main;main(sys.argv[1])"

_BASE_SECONDS = 20.0
_PER_SECOND = 0.2
"""Most processor time of a child, and most time spent waiting for it: seconds at the start, and
seconds for each second of audio. A Raspberry Pi 3 decodes AAC 40 times faster than it plays."""

_POLL_MS = 50
"""Short enough that a waiting worker still shows the watchdog (`app/startup/systemd.py`) some
processor time."""

_READ_BYTES = 1 << 16
_REAP_SECONDS = 5.0


class ChildError(Exception):
    """The child ended, broke the protocol, or took too long; the message says which."""


class Child:
    """A running child. `packages` is the folder of PyAV; `max_seconds` is the longest audio
    accepted; `resume` continues where another child of the same body was stopped. Raises
    `OSError`."""

    def __init__(
        self,
        descriptor: int,
        demuxer: str,
        packages: str,
        max_seconds: float,
        resume: wire.Resume | None,
    ) -> None:
        self._data = bytearray()
        self._waited = 0.0
        place = None
        if resume is not None:
            place = list(astuple(resume))
        cpu_seconds = int(_allowance(max_seconds)) + 1
        argument = json.dumps([os.getpid(), demuxer, packages, cpu_seconds, place])
        self._pipe, writer = os.pipe()
        try:
            with _reopened(descriptor) as body, _blocked_signals():
                self._process = subprocess.Popen(
                    [*_interpreter(), argument],
                    stdin=body,
                    stdout=writer,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self, position: float) -> tuple[bytes, bytearray]:
        """Return the kind and the payload of the next message; `position` are the seconds of audio
        received so far. Raises `ChildError`."""
        self._fill(wire.HEAD.size, position)
        kind, size = wire.HEAD.unpack_from(self._data)
        if size > wire.MAX_PAYLOAD:
            raise ChildError("it sent a message that is too long")
        end = wire.HEAD.size + size
        self._fill(end, position)
        payload = self._data[wire.HEAD.size : end]
        del self._data[:end]
        return kind, payload

    def close(self) -> None:
        """Kill the child. May be called twice."""
        if self._pipe < 0:
            return
        os.close(self._pipe)
        self._pipe = -1
        self._process.kill()
        # A child in an uninterruptible read is reaped later, by the next child's start.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)

    def _fill(self, count: int, position: float) -> None:
        """Read until `count` bytes are there."""
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while len(self._data) < count:
            began = time.monotonic()
            ready = poll.poll(_POLL_MS)
            more = os.read(self._pipe, _READ_BYTES) if ready else b""
            self._waited += time.monotonic() - began
            self._check_time(position)
            if ready and not more:
                raise ChildError(self._ending())
            self._data += more

    def _check_time(self, position: float) -> None:
        allowed = _allowance(position)
        if self._waited > allowed or self._cpu_seconds() > allowed:
            raise ChildError("it takes too long to decode; convert it to FLAC or WAV")

    def _cpu_seconds(self) -> float:
        # Linux numbers the processor clocks of other processes so (MAKE_PROCESS_CPUCLOCK).
        try:
            return time.clock_gettime((~self._process.pid << 3) | 2)
        except OSError:
            return 0.0

    def _ending(self) -> str:
        try:
            status = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "its decoder stopped"
        return f"its decoder ended with signal {-status}" if status < 0 else "its decoder failed"


def _allowance(seconds: float) -> float:
    return _BASE_SECONDS + _PER_SECOND * seconds


def _interpreter() -> list[str]:
    root = str(Path(app.__file__).resolve().parents[1])
    return [sys.executable, "-I", "-S", "-B", "-c", _BOOT.format(root)]


def _environment() -> dict[str, str]:
    """Nothing of the node's environment but the place of the interpreter's libraries."""
    name = "LD_LIBRARY_PATH"
    return {name: os.environ[name]} if name in os.environ else {}


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block the signals that the child will ignore: it inherits the mask, and so none of them can
    end it before. Blocks them for this thread alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _reopened(descriptor: int) -> Iterator[int]:
    """Open the body again, for reading only and with a position of its own."""
    try:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # Without /proc the child shares the descriptor, which nobody else uses meanwhile.
        again = os.dup(descriptor)
    try:
        yield again
    finally:
        os.close(again)
