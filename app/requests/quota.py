"""The quota: limits on the number of unfinished requests and on the bytes of audio that are held.

A request asks for a place once, when its header arrives. It holds its place and its bytes until its
outcome is known. Without a free place it waits in line. The line moves in the order of arrival,
except that a client (an address) with fewer places goes before one with more, so that hundreds of
connections of one client do not block the single request of another. If the first request in line
does not fit, the later ones wait as well; otherwise large bodies would never be admitted beside
small ones. A client with a place gets at most three quarters of the places and bytes, so that its
stalled uploads do not block the others; its first body may take all bytes.

A stream of live audio takes bytes but no place: it may be idle for hours. Pure; loop thread only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

STEP_BYTES = 1_048_576
"""A body of unknown length is reserved in steps of this size."""

STREAM_BYTES = 2 * 1_048_576
"""The most memory of a stream of live audio: the samples of its open utterance, 30 s at most."""

_RESERVED_FRACTION = 0.25
"""Fraction of the places and bytes that a single client may not use."""

_DIRECT_FRACTION = 0.5
"""Fraction of the places that `admit_directly` gives to one client. That client is the journal or
the queue, whose requests must leave places for those that arrive."""


@dataclass(slots=True, eq=False)
class _Claim:
    number: int
    client: str
    size: int
    is_stream: bool = False


class Quota:
    """`places` for requests and `capacity` bytes for bodies. Requests are identified by number."""

    def __init__(self, places: int, capacity: int) -> None:
        self._places = places
        self._most_direct = max(1, int(places * _DIRECT_FRACTION))
        self._capacity = capacity
        self._admitted: dict[int, _Claim] = {}
        self._line: dict[int, _Claim] = {}
        """The requests that wait, in order of arrival."""
        self.streams = 0
        """The number of streams that are admitted."""
        self._held: Counter[str] = Counter()
        """Number of places and streams by client."""
        self._held_places: Counter[str] = Counter()
        """Number of places by client."""
        self._held_bytes: Counter[str] = Counter()
        """Number of bytes by client."""
        self.claimed_bytes = 0
        """Number of bytes that are held or reserved."""

    @property
    def admitted(self) -> int:
        """The number of requests with a place."""
        return len(self._admitted) - self.streams

    @property
    def waiting(self) -> int:
        """The number of requests in line."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """True if any further request would have to wait, even the smallest of a new client."""
        waiting = any(not claim.is_stream for claim in self._line.values())
        return waiting or not (self._has_place and self._has_bytes(0))

    @property
    def has_room_for_stream(self) -> bool:
        """True if a stream of live audio would get its bytes now."""
        return self._has_bytes(min(STREAM_BYTES, self._capacity))

    def enqueue(self, number: int, client: str, size: int | None) -> None:
        """Put a request in line for a place and `size` bytes; None reserves one step."""
        self._line[number] = _Claim(number, client, STEP_BYTES if size is None else size)

    def enqueue_stream(self, number: int, client: str) -> None:
        """Put a stream of live audio in line for its bytes."""
        size = min(STREAM_BYTES, self._capacity)
        self._line[number] = _Claim(number, client, size, is_stream=True)

    def direct_places(self, client: str) -> int:
        """Return how many places `admit_directly` would give: none while others wait in line."""
        if self._line or not self._has_bytes(STEP_BYTES):
            return 0
        free = self._places - len(self._admitted)
        return max(0, min(free, self._most_direct - self._held_places[client]))

    def admit_directly(self, number: int, client: str) -> bool:
        """Give a place without bytes, outside of the line, while `client` has less than half of the
        places. Return whether the place was given."""
        if not (self._has_place and self._has_bytes(0)):
            return False
        if self._held_places[client] >= self._most_direct:
            return False
        self._admit(_Claim(number, client, 0))
        return True

    def admit_next(self, *, streams: bool = True) -> int | None:
        """Admit the next request in line, if it fits, and return its number. With `streams` False
        all streams stay in line."""
        # Clients with the fewest places come first; within a client, the oldest request. Streams
        # do not wait for a place, so they pass requests that do.
        firsts: dict[tuple[str, bool], _Claim] = {}
        for claim in self._line.values():
            if streams if claim.is_stream else self._has_place:
                firsts.setdefault((claim.client, claim.is_stream), claim)
        for claim in sorted(firsts.values(), key=lambda claim: self._held[claim.client]):
            if not self._within_share(claim):
                continue
            if not self._has_bytes(claim.size):
                return None
            del self._line[claim.number]
            self._admit(claim)
            return claim.number
        return None

    def grow(self, number: int, size: int) -> bool:
        """Raise a request's bytes to `size` or the step above; return False if they are not
        free."""
        claim = self._admitted[number]
        if size <= claim.size:
            return True
        more = -(-size // STEP_BYTES) * STEP_BYTES - claim.size
        if self.claimed_bytes + more > self._capacity:
            return False
        claim.size += more
        self._take(claim, more)
        return True

    def shrink(self, number: int, size: int) -> None:
        """Release the bytes above `size`: the body is complete and smaller than reserved."""
        claim = self._admitted[number]
        if size < claim.size:
            self._take(claim, size - claim.size)
            claim.size = size

    def release(self, number: int) -> None:
        """Remove a request, admitted or in line. Does nothing if it is neither."""
        self._line.pop(number, None)
        if claim := self._admitted.pop(number, None):
            self._take(claim, -claim.size)
            self.streams -= claim.is_stream
            self._held[claim.client] -= 1
            self._held_places[claim.client] -= not claim.is_stream
            if not self._held[claim.client]:
                for held in (self._held, self._held_places, self._held_bytes):
                    del held[claim.client]

    def _admit(self, claim: _Claim) -> None:
        self._admitted[claim.number] = claim
        self.streams += claim.is_stream
        self._held[claim.client] += 1
        self._held_places[claim.client] += not claim.is_stream
        self._take(claim, claim.size)

    def _take(self, claim: _Claim, size: int) -> None:
        self.claimed_bytes += size
        self._held_bytes[claim.client] += size

    @property
    def _has_place(self) -> bool:
        return self.admitted < self._places

    def _has_bytes(self, size: int) -> bool:
        return self.claimed_bytes + size <= self._capacity

    def _within_share(self, claim: _Claim) -> bool:
        held = self._held if claim.is_stream else self._held_places
        if not held[claim.client]:
            return True
        places = self._places - int(self._places * _RESERVED_FRACTION)
        if not claim.is_stream and self._held_places[claim.client] >= places:
            return False
        size = self._held_bytes[claim.client] + claim.size
        return size <= self._capacity - int(self._capacity * _RESERVED_FRACTION)
