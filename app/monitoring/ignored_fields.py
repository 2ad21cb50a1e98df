"""Logs, once each, the names of fields that clients send and the node ignores. Loop thread only."""

from __future__ import annotations

import structlog

from app.messages import Origin, Outcome, Request

_MOST = 100
"""Names that are logged; a client could send any number of them."""

_log = structlog.get_logger("fields")


class IgnoredFields:
    """Counts as an `Observer`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """Log the names in `request` that are new."""
        for name in () if request is None else request.ignored:
            shown = name[:80]
            if shown not in self._seen and len(self._seen) < _MOST:
                self._seen.add(shown)
                _log.info("a field is ignored: docs/fields.md says why", field=shown)
