"""The order in which live jobs are heard. Pure; under the worker's lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class HearingLine:
    """The jobs with something to hear, by number. A blocked one is not heard before `unblock`, a
    held one not while it is `held`."""

    def __init__(self) -> None:
        self._hungry: dict[int, None] = {}
        self._blocked: dict[int, None] = {}
        self._held: set[int] = set()

    @property
    def is_hungry(self) -> bool:
        """Whether there is a job to hear now."""
        return len(self._hungry) > sum(number in self._hungry for number in self._held)

    @property
    def is_empty(self) -> bool:
        return not (self._hungry or self._blocked)

    def __contains__(self, number: int) -> bool:
        """Whether a job is to be heard now."""
        return number in self._hungry

    def add(self, number: int) -> None:
        """Add a job to the end, unless it is in line."""
        self._hungry[number] = None

    def block(self, number: int) -> None:
        """Add a job that waits for a place or for the engine before it can be heard."""
        self._blocked[number] = None

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Do not hear a job meanwhile, because its decode uses its audio. It keeps its place."""
        self._held.add(number)
        try:
            yield
        finally:
            self._held.discard(number)

    def is_held(self, number: int) -> bool:
        return number in self._held

    def unblock(self) -> None:
        """Let all blocked jobs try again."""
        self._hungry.update(self._blocked)
        self._blocked.clear()

    def take(self) -> int:
        """Remove and return the first job that is not held."""
        number = next(number for number in self._hungry if number not in self._held)
        del self._hungry[number]
        return number

    def remove(self, number: int) -> None:
        """Remove a job; ignore an unknown one."""
        self._hungry.pop(number, None)
        self._blocked.pop(number, None)
