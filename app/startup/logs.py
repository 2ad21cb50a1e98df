"""The log: structlog to stderr, for people or as JSON lines.

Set up once by `app/__main__.py`, before anything logs. Neither audio nor text of a request is
logged; its id is. A log that nobody reads delays nothing: lost lines are counted in `lines_lost` of
the next line. Any thread may log.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

import structlog

from app.requests.outcomes import OutcomeLog
from app.startup.stderr import Stderr


def configure(verbose: bool, as_json: bool) -> None:
    """Send the log to stderr: level info, or debug when `verbose`."""
    stderr = Stderr(sys.stderr.fileno())
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    processors: list[Any] = [_add_logger_fields, structlog.processors.add_log_level, stamp]
    if as_json:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=functools.partial(_StderrLogger, stderr),
        cache_logger_on_first_use=True,
    )


def outcome_log(as_json: bool) -> OutcomeLog:
    """Return the form of an outcome's line in the log. On the terminal of stdout there is none,
    because stdout has the line already. On another terminal the line has the cause of a failure.
    Programs and files receive the code only, because a cause can quote a field of the client."""
    if as_json or not sys.stderr.isatty():
        return "code"
    terminals = {os.fstat(stream.fileno()).st_rdev for stream in (sys.stdout, sys.stderr)}
    return "none" if sys.stdout.isatty() and len(terminals) == 1 else "cause"


class _StderrLogger:
    """Writes to stderr and holds the name that `get_logger` was given."""

    def __init__(self, stderr: Stderr, name: str = "") -> None:
        self.stderr = stderr
        self.name = name

    def msg(self, message: str) -> None:
        self.stderr.write(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _add_logger_fields(logger: Any, _method: str, event: Any) -> Any:
    if isinstance(logger, _StderrLogger):
        if logger.name:
            event["logger"] = logger.name
        if lost := logger.stderr.lost:
            event["lines_lost"] = lost
    return event
