"""The order in which live jobs are heard. Pure; worker thread."""

from __future__ import annotations


class HearingLine:
    """The jobs with something to hear, by number. A blocked one is not heard before `unblock`."""

    def __init__(self) -> None:
        self._hungry: dict[int, None] = {}
        self._blocked: dict[int, None] = {}

    @property
    def is_hungry(self) -> bool:
        """Whether there is a job to hear now."""
        return bool(self._hungry)

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

    def unblock(self) -> None:
        """Let all blocked jobs try again."""
        self._hungry.update(self._blocked)
        self._blocked.clear()

    def take(self) -> int:
        """Remove and return the first job."""
        number = next(iter(self._hungry))
        del self._hungry[number]
        return number

    def remove(self, number: int) -> None:
        """Remove a job; ignore an unknown one."""
        self._hungry.pop(number, None)
        self._blocked.pop(number, None)
