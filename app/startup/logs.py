"""The log: structlog to stderr, for people or as JSON lines.

Set up once by `app/__main__.py`, before anything logs. What a request said, in audio or text, is
never logged; its id is. Any thread may log.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

import structlog


def configure(verbose: bool, as_json: bool) -> None:
    """Send the log to stderr: level info, or debug when `verbose`."""
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    processors: list[Any] = [_add_room, structlog.processors.add_log_level, stamp]
    if as_json:
        processors.append(structlog.processors.format_exc_info)
    # It warns of what it cannot parse by quoting it.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=True,
    )


class _StderrLogger(structlog.PrintLogger):
    """Prints to stderr and remembers the name of the module it was made for."""

    def __init__(self, room: str = "") -> None:
        super().__init__(sys.stderr)
        self.room = room

    def msg(self, message: str) -> None:
        # Where nobody reads the log any more (a pipe's reader has gone), or there is no room for
        # it, requests are served all the same.
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _add_room(logger: Any, _method: str, event: Any) -> Any:
    if isinstance(logger, _StderrLogger) and logger.room:
        event["room"] = logger.room
    return event
