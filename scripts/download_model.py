#!/usr/bin/env python3
"""Fetch or list Whisper models. Needs only Python.

The same code as the node's own first start (`app/model_files/catalog.py`), on the command line.
Prints the path of each model on standard output, everything else on standard error. Exit status: 0
if every model is there, 1 if one could not be had, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for app

from app.model_files import catalog, http_source  # noqa: E402
from app.model_files import verify as verified  # noqa: E402
from app.model_files.progress import Bar  # noqa: E402

# The share of memory that a model may take; the system and the node need the rest.
MEMORY_SHARE = 0.8


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    directories = [Path(options.models_dir) if options.models_dir else ROOT / "models"]
    try:
        if options.list or options.all_sources:
            chosen = [_entry(name) for name in options.names] or list(catalog.entries())
            lines = _sources(chosen) if options.all_sources else _list(chosen, directories)
            for line in lines:
                print(line)
            return 0
        if not options.names:
            parser.error("name a model, or use --list")
        return max([_get(name, directories, options.offline) for name in options.names])
    except catalog.CatalogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # piped into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; the next run resumes the partial download", file=sys.stderr)
        return 130


def _get(name: str, directories: Sequence[Path], offline: bool) -> int:
    try:
        with Bar(name) as bar:
            model = catalog.obtain(name, directories, offline=offline, progress=bar)
    except catalog.CatalogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(model.path)
    return 0


def _entry(name: str) -> catalog.Entry:
    entry = catalog.find(name)
    if entry is None:
        raise catalog.CatalogError(f"no model is called {name!r}: --list shows all")
    return entry


def _list(entries: Sequence[catalog.Entry], directories: Sequence[Path]) -> Iterator[str]:
    """Yield a table of every entry: size, presence on disk, and fit in memory."""
    limit = memory_bytes()
    yield f"{'NAME':22} {'MB':>7}  {'LANGUAGES':11}  {'MEMORY MB':>9}  {'FITS':5}  ON DISK"
    for entry in entries:
        size = "?" if entry.size is None else f"{entry.size / 1e6:.0f}"
        memory = "?" if entry.memory is None else f"~{entry.memory / 1e6:.0f}"
        fits = "?"
        if limit is not None and entry.memory is not None:
            fits = "yes" if entry.memory <= limit * MEMORY_SHARE else "no"
        mark = "*" if entry.recommended else " "
        yield (
            f"{entry.name + mark:22} {size:>7}  "
            f"{'99 or more' if entry.multilingual else 'English':11}  {memory:>9}  {fits:5}  "
            f"{_state(entry, directories)}"
        )
    known = "not known" if limit is None else f"{limit / 1e6:.0f} MB"
    yield ""
    yield f"* is what the bare name means. Memory of this machine: {known}; a model fits if it"
    yield f"needs at most {MEMORY_SHARE:.0%} of it (a rough figure; see docs/models.md)."


def _state(entry: catalog.Entry, directories: Sequence[Path]) -> str:
    for directory in directories:
        path = directory / entry.file
        try:
            if not path.is_file():
                continue
            if verified.remembered(entry, path):
                return f"verified ({directory})"
            if entry.size is not None and path.stat().st_size != entry.size:
                return f"damaged: wrong size ({directory})"
        except OSError as error:
            return f"cannot be read: {error.strerror} ({directory})"
        return f"not verified yet ({directory})"
    return "-"


def _sources(entries: Sequence[catalog.Entry]) -> Iterator[str]:
    for entry in entries:
        yield entry.name
        yield f"  {http_source.url_of(entry)}"
        if entry.package is not None:
            yield f"  package {' and '.join(entry.package.requirements)}, converted here"
        for kind, digest in entry.digests:
            yield f"  {kind} {digest}"


def memory_bytes() -> int | None:
    """Return the memory limit of the control group or of the machine in bytes; None if unknown."""
    found = []
    with contextlib.suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in (
        "/sys/fs/cgroup/memory.max",  # control groups version 2, as a container sees its own
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",  # version 1
    ):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit
            found.append(int(text))
    return min(found, default=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fetch Whisper models, or show which there are.",
        epilog="HF_ENDPOINT names a mirror of https://huggingface.co to fetch from instead.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="tiny.en, base-q5_1, ...")
    parser.add_argument(
        "--models-dir", metavar="D", help="use this directory instead of the repository's models/"
    )
    parser.add_argument("--list", action="store_true", help="list every model")
    parser.add_argument(
        "--all-sources", action="store_true", help="list the sources and hashes of each model"
    )
    parser.add_argument("--offline", action="store_true", help="never use the network")
    return parser


if __name__ == "__main__":
    sys.exit(main())
