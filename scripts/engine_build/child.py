"""A process that answers each line on its stdin with a line of JSON.

Every measured engine runs in such a process. Two engines in one process would share libgomp, the
allocator and the processor's caches, and a crash of one would end the measurement.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TAIL = 800
"""Maximum number of characters from the process's stderr in an error."""


class ChildError(Exception):
    """The process ended without an answer. The text contains the end of its stderr."""


class Child:
    """The process `command`, started by the constructor. Only one caller at a time."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        # A file instead of a pipe: stderr is not read while the process runs, so a pipe would fill.
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
        """Return the next line that it prints. Raises `ChildError` if there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise ChildError(f"status {self._process.returncode}: {self._errors.read()[-_TAIL:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line; return the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended; answer() reports the error.
        return self.answer()

    def close(self) -> None:
        """Close its stdin and wait for its end."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        reap(self._process, 10)
        self._errors.close()


def reap(process: subprocess.Popen[Any], seconds: float) -> None:
    """Wait for a process that should end; kill it after `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
