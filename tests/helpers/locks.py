"""Reads the requirements files that scripts/dev/lock writes."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement


def blocks(path: Path) -> list[list[str]]:
    """The requirements of a file, each with its lines: the requirement, then its hashes."""
    found: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        text = line.strip().removesuffix("\\").strip()
        if line.startswith(" "):
            found[-1].append(text)
        else:
            found.append([text])
    return found


def locked(path: Path) -> list[Requirement]:
    """The requirements of a file, with their markers."""
    return [Requirement(lines[0]) for lines in blocks(path)]
