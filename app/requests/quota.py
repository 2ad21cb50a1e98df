"""Who gets a place: how many requests may be unfinished, how many bytes of audio may be held.

Pure: no sockets, no clock. A request asks once, at its header, and holds its place and its bytes
until its outcome is known. Where there is no room it waits in line. The line moves in the order of
arrival, but for one thing: a client (an address) that holds fewer places goes before one that holds
more, so that hundreds of waiting connections of one client do not keep the single request of
another out. Whoever is first and does not fit is waited for, or large bodies would never get in
beside small ones. And one client alone never gets all there is: a part is left for the others, so
that uploads that do not get on lock nobody else out. Loop thread only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

STEP_BYTES = 1_048_576
"""A body of unknown length is reserved in steps of this size."""

_KEPT_FOR_OTHERS = 4
"""One part in so many of the places, and of the bytes, is not given to one client alone."""


@dataclass(slots=True, eq=False)
class _Claim:
    number: int
    client: str
    size: int


class Quota:
    """Hands out `places` and `capacity` bytes. Numbers are the requests', and never come twice."""

    def __init__(self, places: int, capacity: int) -> None:
        self._places = places
        self._capacity = capacity
        self._admitted: dict[int, _Claim] = {}
        self._line: dict[int, _Claim] = {}
        """In order of arrival."""
        self._held: Counter[str] = Counter()
        """Places by client."""
        self._held_bytes: Counter[str] = Counter()
        self.reserved = 0
        """Bytes that are held or promised."""

    @property
    def admitted(self) -> int:
        """How many hold a place."""
        return len(self._admitted)

    @property
    def waiting(self) -> int:
        """How many are in line."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """True if the next request would have to wait, whoever sent it and however small it is."""
        return bool(self._line) or not self._has_room(0)

    def line_up(self, number: int, client: str, size: int | None) -> None:
        """Get in line for a place and `size` bytes, None for a first step; see `next`."""
        self._line[number] = _Claim(number, client, STEP_BYTES if size is None else size)

    def admit(self, number: int, client: str) -> bool:
        """Give a place outside of the line, for what takes no bytes, while `client` has less than
        half of them."""
        if not self._has_room(0) or self._held[client] >= max(1, self._places // 2):
            return False
        self._admitted[number] = _Claim(number, client, 0)
        self._held[client] += 1
        return True

    def next(self) -> int | None:
        """Admit the next one in line, if it fits; who that is."""
        # First those with the fewest places, and among them in order of arrival.
        firsts: dict[str, _Claim] = {}
        for claim in self._line.values():
            firsts.setdefault(claim.client, claim)
        for claim in sorted(firsts.values(), key=lambda claim: self._held[claim.client]):
            if not self._within_share(claim):
                continue
            if not self._has_room(claim.size):
                return None
            del self._line[claim.number]
            self._admitted[claim.number] = claim
            self._held[claim.client] += 1
            self._take(claim, claim.size)
            return claim.number
        return None

    def grow(self, number: int, size: int) -> bool:
        """Raise a request's bytes to `size` or the step above; False if they are not to be had."""
        claim = self._admitted[number]
        if size <= claim.size:
            return True
        more = -(-size // STEP_BYTES) * STEP_BYTES - claim.size
        if self.reserved + more > self._capacity:
            return False
        claim.size += more
        self._take(claim, more)
        return True

    def shrink(self, number: int, size: int) -> None:
        """Give back what is beyond `size`: the body is complete and turned out smaller."""
        claim = self._admitted[number]
        if size < claim.size:
            self._take(claim, size - claim.size)
            claim.size = size

    def leave(self, number: int) -> None:
        """Give up a place, or one in line; none is no harm."""
        self._line.pop(number, None)
        if claim := self._admitted.pop(number, None):
            self._take(claim, -claim.size)
            self._held[claim.client] -= 1
            if not self._held[claim.client]:
                del self._held[claim.client], self._held_bytes[claim.client]

    def _take(self, claim: _Claim, size: int) -> None:
        self.reserved += size
        self._held_bytes[claim.client] += size

    def _has_room(self, size: int) -> bool:
        return len(self._admitted) < self._places and self.reserved + size <= self._capacity

    def _within_share(self, claim: _Claim) -> bool:
        held = self._held[claim.client]
        if not held:
            return True
        size = self._held_bytes[claim.client] + claim.size
        return (
            held < self._places - self._places // _KEPT_FOR_OTHERS
            and size <= self._capacity - self._capacity // _KEPT_FOR_OTHERS
        )
