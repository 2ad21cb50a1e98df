"""The places for utterances of streams in progress (`--max-live`).

A stream holds a place from the beginning of an utterance until none of its utterances is open or
waits for its result; an idle stream holds none. One client (an address) gets at most three quarters
of the places. Streams without a place wait in order of arrival. Pure; worker thread, and any thread
may read `taken`.
"""

from __future__ import annotations

from collections import Counter

_SHARE = 0.75
"""Fraction of the places that one client may take."""


class Places:
    """`count` places, at least one. Streams are identified by number."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._most_of_one = max(1, int(count * _SHARE))
        self._holders: dict[int, str] = {}
        self._line: dict[int, str] = {}
        """The streams that wait, with their clients."""
        self._held: Counter[str] = Counter()
        self.taken = 0
        """Number of places that are taken."""

    @property
    def holders(self) -> list[int]:
        """The streams with a place."""
        return list(self._holders)

    @property
    def is_full(self) -> bool:
        return self.taken >= self._count

    def has(self, number: int) -> bool:
        return number in self._holders

    def take(self, number: int, client: str) -> bool:
        """Take a place for the stream `number`; False if it has to wait. Asking again keeps its
        place in line."""
        if number in self._holders:
            return True
        self._line.setdefault(number, client)
        if self._first() != number:
            return False
        del self._line[number]
        self._holders[number] = client
        self._held[client] += 1
        self.taken = len(self._holders)
        return True

    def give(self, number: int) -> None:
        """Give a place back, or leave the line; ignore a stream that has neither."""
        self._line.pop(number, None)
        client = self._holders.pop(number, None)
        if client is not None:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            self.taken = len(self._holders)

    def _first(self) -> int | None:
        """Return the first stream in line that may take a place now."""
        if self.is_full:
            return None
        for number, client in self._line.items():
            if self._held[client] < self._most_of_one:
                return number
        return None
