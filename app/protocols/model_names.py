"""The names of the loaded model in requests.

A node has one model, so it serves a request that names another one, and every answer names the real
one. A strict node refuses it instead. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.messages import MODEL_NOT_FOUND, Failure


@dataclass(frozen=True, slots=True)
class ModelNames:
    """`name` is the full name; `all` are the names in requests, with `name`. `strict` refuses any
    other."""

    name: str
    all: frozenset[str]
    strict: bool = False

    def refusal(self, asked: str | None) -> Failure | None:
        """Return why a request for the model `asked` is refused; None if it is served."""
        if not self.strict or not asked or asked in self.all:
            return None
        names = ", ".join(sorted(self.all))
        return Failure(MODEL_NOT_FOUND, f"model {asked[:80]!r} is not served here; use {names}")
