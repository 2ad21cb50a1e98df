"""Requests that wait for a place, and the moments at which they may get one.

Places are the quota's. Free ones go to the sources first, which limit themselves, and then to the
uploads in line. Nothing is admitted while stdout is not read, and no stream while the utterances of
others take all places for live audio. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol as Interface

from app.network.connection import Connection
from app.network.loop import Loop
from app.requests.outcomes import Outcomes
from app.requests.output_watch import OutputWatch
from app.requests.quota import Quota
from app.requests.upload import Upload


class Source(Interface):
    """Requests that come from elsewhere than a connection."""

    @property
    def unfinished(self) -> int:
        """The number of requests that are without a place but not over: the node may not end."""

    def take(self) -> None:
        """Take requests while the quota has places."""

    def collect(self) -> None:
        """Process what another thread has reported."""

    def close(self) -> None:
        """Take no further request: the drain begins."""


class WaitingLine:
    """Calls `admit` with each upload that gets a place. `live_full` returns whether no further
    utterance of a stream can begin."""

    def __init__(
        self,
        loop: Loop,
        quota: Quota,
        outcomes: Outcomes,
        sources: Sequence[Source],
        admit: Callable[[Upload], None],
        live_full: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._quota = quota
        self._outcomes = outcomes
        self._sources = sources
        self._admit = admit
        self._live_full = live_full
        self._waiting: dict[int, Upload] = {}
        """The uploads that wait, by number of the request."""
        self._watch = OutputWatch(loop, self.move_up)
        self.closed = False
        """True once no further request is taken."""

    @property
    def uploads(self) -> list[Upload]:
        """Those that wait."""
        return list(self._waiting.values())

    @property
    def crowded(self) -> bool:
        """True if uploads wait for a place or bytes, and not for stdout to be read."""
        waiting = self._quota.full or (self._quota.waiting > 0 and not self._live_full())
        return waiting and not self._outcomes.behind

    def add(self, upload: Upload) -> bool:
        """Put an upload in line; return whether it has been admitted at once."""
        self._waiting[upload.number] = upload
        client, request = upload.in_flight.client.name, upload.in_flight.request
        if request.live is not None:
            self._quota.enqueue_stream(upload.number, client)
        else:
            self._quota.enqueue(upload.number, client, request.content_length)
        self.move_up()
        return upload.number not in self._waiting

    def remove(self, upload: Upload) -> None:
        """Take an upload out of the line."""
        del self._waiting[upload.number]
        self.release(upload.number)

    def of(self, connection: Connection) -> Upload | None:
        """Return the upload of `connection` that waits, if one does."""
        uploads = (upload for upload in self._waiting.values() if upload.connection is connection)
        return next(uploads, None)

    def release(self, number: int) -> None:
        """Free the place and the bytes of a request."""
        self._quota.release(number)
        self._loop.defer(self.move_up)

    def move_up(self) -> None:
        """Admit as many as there are places for."""
        if self.closed:
            return
        for source in self._sources:
            source.take()
        while self._waiting and not self._outcomes.behind:
            number = self._quota.admit_next(streams=not self._live_full())
            if number is None:
                break
            self._admit(self._waiting.pop(number))
        # No event reports the end of either.
        if self._waiting and (self._outcomes.behind or self._live_full()):
            self._watch.schedule()

    def close(self) -> list[Upload]:
        """Admit nothing further; return the uploads that wait, which the caller rejects."""
        self.closed = True
        uploads = self.uploads
        for upload in uploads:
            self.remove(upload)
        return uploads
