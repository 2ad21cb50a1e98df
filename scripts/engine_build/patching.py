"""Applies the patches of `patches/` to the engine's source.

A patch is a unified diff of our own with its reason above it. It applies to one version of the
source only: every line of context must be where the patch says, or nothing is built. The tools of
the system (patch, git) are not needed, because the image's build does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("patches")

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NO_NEWLINE = "\\ No newline at end of file"


class PatchError(Exception):
    """A patch does not fit the source, or is no unified diff. The text says which and where."""


@dataclass(frozen=True)
class _Hunk:
    """Lines `old`, from line `start` on (counted from 0), become `new`."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def patches() -> list[Path]:
    """Return the patches in the order in which they apply."""
    return sorted(FOLDER.glob("*.patch"))


def apply_patch(patch: Path, source: Path) -> None:
    """Change the files in the folder `source` as `patch` says. Raises `PatchError` without having
    changed a file if any part of it does not fit."""
    changed: dict[Path, str] = {}
    for name, hunks in _files(patch):
        path = source / name
        if not path.is_file():
            raise PatchError(f"{patch.name} changes {name}, which is not in {source}")
        lines = path.read_text().split("\n")
        for hunk in reversed(hunks):
            end = hunk.start + len(hunk.old)
            if tuple(lines[hunk.start : end]) != hunk.old:
                raise PatchError(
                    f"{patch.name} does not fit {name} at line {hunk.start + 1}: it was made for "
                    "another version of the source"
                )
            lines[hunk.start : end] = hunk.new
        changed[path] = "\n".join(lines)
    for path, text in changed.items():
        path.write_text(text)


def _files(patch: Path) -> list[tuple[str, list[_Hunk]]]:
    lines = patch.read_text().split("\n")
    found: list[tuple[str, list[_Hunk]]] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if line.startswith("--- a/") and lines[position].startswith("+++ b/"):
            found.append((lines[position].removeprefix("+++ b/"), []))
            position += 1
        elif match := _HUNK.match(line):
            if not found:
                raise PatchError(f"{patch.name}, line {position}: changes before a file's name")
            hunk, position = _hunk(patch, lines, position, match)
            found[-1][1].append(hunk)
    if not any(hunks for _, hunks in found):
        raise PatchError(f"{patch.name} contains no changes")
    return found


def _hunk(
    patch: Path, lines: Sequence[str], position: int, head: re.Match[str]
) -> tuple[_Hunk, int]:
    """Return the changes after the line `head`, and the position after them."""
    old: list[str] = []
    new: list[str] = []
    old_count, new_count = int(head[2] or 1), int(head[4] or 1)
    while len(old) < old_count or len(new) < new_count:
        line = lines[position] if position < len(lines) else _NO_NEWLINE
        position += 1
        if line[:1] not in ("", " ", "-", "+"):
            raise PatchError(f"{patch.name}, line {position}: not a line of a unified diff: {line}")
        if not line.startswith("+"):
            old.append(line[1:])
        if not line.startswith("-"):
            new.append(line[1:])
    return _Hunk(int(head[1]) - 1, tuple(old), tuple(new)), position
