"""One option of the command line, which is a variable of the environment as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "NODE_WHISPER_"

MANY = 1_000_000
"""The most of anything that is counted."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: a flag, and a variable of the same name. `parse` is from
    `app/settings/types.py`."""

    names: tuple[str, ...]
    default: Any
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    repeatable: bool = False
    """Values of a repeated option are concatenated; `parse` returns a tuple."""

    @property
    def field(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.field.upper()
