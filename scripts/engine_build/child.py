"""A process that answers each line on its stdin with a line of JSON: how engines are kept apart.

Every engine that is measured runs in one of these, since two of them in one process would share
libgomp, the allocator and the processor's caches, and a crash of one would end the measurement.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TAIL = 800
"""Characters of its stderr that an error shows."""


class ChildError(Exception):
    """The process ended instead of answering. The text holds the end of what it wrote."""


class Child:
    """The process `command`, started at once. One caller at a time."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        # A file, not a pipe: nobody reads it while the process runs, and a pipe would fill up.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid

    def answer(self) -> dict[str, Any]:
        """The next line it prints. Raises `ChildError` if there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise ChildError(f"status {self._process.returncode}: {self._errors.read()[-_TAIL:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, line: str) -> dict[str, Any]:
        """Send it one line; its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: answer() says how
        return self.answer()

    def close(self) -> None:
        """Let it end by the end of its stdin."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        reap(self._process, 10)
        self._errors.close()


def reap(process: subprocess.Popen[Any], seconds: float) -> None:
    """Wait for a process that was told to end; kill it if that takes longer than `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
