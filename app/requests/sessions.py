"""Decides on upgrades to a session: WebSockets of live audio.

A session takes no place of the queue; each of its streams takes the bytes of one. What it may not
have is answered before the upgrade, with a status that every HTTP client understands. Loop thread
only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.messages import Failure, Origin
from app.network.connection import Connection
from app.requests import failures
from app.requests.access import Access
from app.requests.outcomes import Outcomes


class Sessions:
    """`closed` returns whether the node takes no further request, `full` whether a stream would
    have to wait, and `busy_seconds` the time after which to retry."""

    def __init__(
        self,
        access: Access,
        outcomes: Outcomes,
        *,
        closed: Callable[[], bool],
        full: Callable[[], bool],
        busy_seconds: Callable[[], float],
    ) -> None:
        self._access = access
        self._outcomes = outcomes
        self._closed = closed
        self._full = full
        self._busy_seconds = busy_seconds

    def allows(self, connection: Connection, token: str | None) -> bool:
        """Return whether `connection` may be upgraded; otherwise its client has the reason."""
        failure = self._failure(connection, token)
        if failure is None:
            return True
        connection.answer(connection.expect(None, silent=False), failure, final=True)
        peer = connection.peer
        origin = Origin(peer.name, time.time(), peer.port.name)
        self._outcomes.record(None, origin, failure)
        return False

    def _failure(self, connection: Connection, token: str | None) -> Failure | None:
        if not self._access.allows(connection.peer, token):
            return failures.unauthorized()
        if self._closed():
            return failures.shutting_down()
        if self._full():
            return failures.at_capacity(self._busy_seconds())
        return None
