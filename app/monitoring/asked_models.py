"""Logs, once each, the names of other models that clients ask for. Loop thread only."""

from __future__ import annotations

import structlog

from app.messages import Origin, Outcome, Request
from app.protocols.model_names import ModelNames

_MOST = 100
"""Names that are logged; a client could send any number of them."""

_log = structlog.get_logger("models")


class AskedModels:
    """Counts as an `Observer`; `names` are those of the loaded model."""

    def __init__(self, names: ModelNames) -> None:
        self._names = names
        self._seen: set[str] = set()

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """Log the name in `request` if it is new and not the loaded model's."""
        asked = None if request is None or request.model is None else request.model[:80]
        if asked is None or asked in self._names.all or asked in self._seen:
            return
        if len(self._seen) < _MOST:
            self._seen.add(asked)
            _log.info("another model was asked for", asked=asked, used=self._names.name)
