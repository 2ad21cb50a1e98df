"""The catalogue of models, and checked files for their names.

`obtain` returns only a file that was checked: a corrupt model makes whisper.cpp crash the process,
and a truncated one loads as "empty" and answers nothing. An official file is checked by its hashes
(`app/model_files/verify.py`), a user's own file by its structure (`app/model_files/ggml.py`),
because nobody published a hash for it. The catalogue is data in `catalog.json`; a file that is not
on disk yet is fetched by `app/model_files/fetch.py`.

Standard library only, and nothing from the rest of `app`, because `scripts/download_model.py` runs
this before anything is installed. Everything runs on the caller's thread and blocks; the node calls
it once, before it listens.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.model_files.entry import CatalogError, Entry, Notify, Package, Progress
from app.model_files.ggml import inspect
from app.model_files.verify import verified

# Callers of this module handle the error and the entry, too.
__all__ = ["CatalogError", "Entry", "ModelFile", "entries", "find", "obtain"]

CATALOG_FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class ModelFile:
    """A checked file. `name` is its full name, such as `tiny.en-q8_0`; for a user's own file it is
    the file name without a leading `ggml-` and without its suffix."""

    path: Path
    name: str


def entries(catalog: Path = CATALOG_FILE) -> tuple[Entry, ...]:
    """Return every entry of the catalogue, in its order. Raises CatalogError."""
    try:
        document = json.loads(catalog.read_text(encoding="utf-8"))
        found = tuple(_entries(document))
    except OSError as error:
        raise CatalogError(
            f"cannot read the model catalogue {catalog} ({error.strerror}): "
            "restore it from the repository"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"the model catalogue {catalog} is damaged ({error!r}): restore it from the repository"
        ) from error
    return found


def _entries(document: Any) -> Iterator[Entry]:
    for model in document["models"]:
        package = _package(model["package"]) if "package" in model else None
        for file in model["files"]:
            quantization = file["quantization"]
            size = file["bytes"]
            yield Entry(
                name=f"{model['name']}-{quantization}",
                model=model["name"],
                quantization=quantization,
                multilingual=model["multilingual"],
                recommended=quantization == model["recommended"],
                file=file["file"],
                size=size,
                digests=tuple((kind, file[kind]) for kind in ("sha1", "sha256") if file.get(kind)),
                memory=None if size is None else size + (model["memory_overhead_mib"] << 20),
                package=package if package and quantization in package.quantizations else None,
            )


def _package(document: Any) -> Package:
    return Package(
        requirements=tuple(f"{d['name']}=={d['version']}" for d in document["distributions"]),
        files=tuple((name, tuple(parts)) for name, parts in document["files"].items()),
        quantizations=frozenset(document["quantizations"]),
    )


def find(spec: str, catalog: Path = CATALOG_FILE) -> Entry | None:
    """Return the entry for an official name, or None. A bare name means the recommended file."""
    for entry in entries(catalog):
        if spec == entry.name or (spec == entry.model and entry.recommended):
            return entry
    return None


def obtain(
    spec: str,
    directories: Sequence[Path],
    *,
    offline: bool = False,
    progress: Progress | None = None,
    notify: Notify | None = None,
    catalog: Path = CATALOG_FILE,
) -> ModelFile:
    """Return a checked model file for `spec`: an official name, with or without a quantization
    suffix, or the path of a ggml file.

    An official file is searched in `directories`, in order; the first that exists is taken.
    If there is none it is fetched into the first writable directory, unless `offline`.
    `progress(done, total)` gets bytes (total None: not known); `notify` gets lines for a person
    (default: standard error). Blocks for the length of a download.

    Raises CatalogError.
    """
    tell = notify or _to_stderr
    entry = find(spec, catalog)
    if entry is None:
        return _own(spec, catalog)
    for directory in directories:
        path = Path(directory) / entry.file
        if _is_file(path):
            return _checked(entry, path)
    if offline:
        raise CatalogError(
            f"{entry.file} is not in {_join(directories)} and --offline is set: on a connected "
            f"machine run 'python3 scripts/download_model.py {entry.name}' and copy "
            f"models/{entry.file} there"
        )
    directory = _writable(directories, entry)
    path = directory / entry.file
    # Imported only now: HTTP and TLS take 8 MiB, and longer to import than everything before. A
    # node that has its model does not need them.
    from app.model_files.fetch import fetch

    fetch(entry, path, progress, tell)
    return _checked(entry, path)


def _own(spec: str, catalog: Path) -> ModelFile:
    """Check a user's own file."""
    # Path.expanduser raises for an unknown user.
    path = Path(os.path.expanduser(spec))
    if not _is_file(path):
        if os.sep in spec or spec.endswith(".bin"):
            raise CatalogError(f"there is no model file {path}: check the path")
        names = sorted({name for e in entries(catalog) for name in (e.name, e.model)})
        near = difflib.get_close_matches(spec, names, 3) or [n for n in names if "-" not in n]
        raise CatalogError(
            f"no model is called {spec!r}; did you mean {', '.join(near)}? "
            "'python3 scripts/download_model.py --list' shows all; a path to a ggml file works too"
        )
    inspect(path)
    return ModelFile(path, path.stem.removeprefix("ggml-"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # the path leads through a directory without permission
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CatalogError:
    return CatalogError(
        f"cannot read the model {path} ({error.strerror}): check the path and its permissions"
    )


def _checked(entry: Entry, path: Path) -> ModelFile:
    try:
        good = verified(entry, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if good:
        return ModelFile(path, entry.name)
    raise CatalogError(
        f"{path} is not the official {entry.name} (its size or hash differs from the "
        "catalogue's): delete it and start again to fetch it, or, if it is your own model, "
        "rename it and pass its path"
    )


def _writable(directories: Sequence[Path], entry: Entry) -> Path:
    for directory in map(Path, directories):
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK | os.X_OK):
                return directory
    raise CatalogError(
        f"{entry.name} is missing and {_join(directories)} cannot be written: "
        "name a writable directory with --models-dir"
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _join(directories: Sequence[Path]) -> str:
    return " or ".join(map(str, directories)) or "any directory"
