"""A progress line on a terminal, a few quiet lines otherwise. Standard library only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

WIDTH = 30  # characters of the bar
REDRAW_SECONDS = 0.1
# Without a terminal, a line at this interval shows progress without filling a log.
QUIET_SECONDS = 30.0


class Bar:
    """Shows progress in bytes on standard error."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._terminal = sys.stderr.isatty()
        self._begun = self._drawn = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: not known)."""
        now = time.monotonic()
        whole = total is not None and done >= total
        if now - self._drawn < (REDRAW_SECONDS if self._terminal else QUIET_SECONDS) and not (
            whole and self._terminal
        ):
            return
        self._drawn = now
        rate = done / max(now - self._begun, 1e-3) / 1e6
        text = f"{done / 1e6:.1f} MB"
        if total:
            text = f"{100 * done // total:3d} %  {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        if not self._terminal:
            print(f"{self._label}: {text.strip()}", file=sys.stderr, flush=True)
            return
        filled = WIDTH * done // total if total else 0
        bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] " if total else ""
        print(f"\r\x1b[K{self._label} {bar}{text}  {rate:.1f} MB/s", end="", file=sys.stderr)
        sys.stderr.flush()
        self._shown = True

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            print(file=sys.stderr)
