"""The stages that a request passes, as the server and the shutdown use them. Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.failures import shutting_down
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.requests.sessions import Sessions
from app.requests.uploads import Uploads
from app.requests.waiting_line import Source


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Uploads, commit, dispatch, outcome. `app/build.py` connects them."""

    quota: Quota
    uploads: Uploads
    commit: Commit
    dispatch: Dispatch
    outcomes: Outcomes
    sessions: Sessions
    sources: Sequence[Source] = ()

    @property
    def unfinished(self) -> int:
        """The number of requests that were admitted (received, queued, or being transcribed), and
        of those from a source that are not over yet. Streams count, although they have no place."""
        unstored = sum(source.unfinished for source in self.sources)
        return self.quota.admitted + self.quota.streams + unstored

    @property
    def full(self) -> bool:
        """True if a further request would have to wait."""
        return self.quota.full or self.outcomes.behind

    def cancel_all_of(self, sequence: int) -> None:
        """Cancel the complete requests of a client that is gone."""
        self.dispatch.cancel_all_of(sequence)
        self.commit.cancel_all_of(sequence)

    def close(self) -> None:
        """Take no further request, and end the streams."""
        self.uploads.close()
        for source in self.sources:
            source.close()

    def collect(self) -> None:
        """Process what the threads of the sources have reported."""
        for source in self.sources:
            source.collect()

    def give_up(self) -> None:
        """End everything that is unfinished."""
        self.uploads.give_up()
        self.commit.give_up()
        # At once, also for the window in progress: the engine may need longer for its encoder pass
        # than the last replies have.
        self.dispatch.give_up(shutting_down())
