"""Installs an engine into `.venv` with a note that describes it, and removes both again.

pip installs it, so that pip's records of the environment stay correct. The note,
`_pywhispercpp_build.json` in site-packages, contains the hash of its extension module. If pip later
replaces the engine and leaves the note, the hash no longer matches and the note must be ignored.
The node reads the note to log the name of its engine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_build.workshop import VERSION

NOTE = "_pywhispercpp_build.json"


class InstallError(Exception):
    """The environment is missing or could not be changed. The text says what to do."""


@dataclass(frozen=True)
class Environment:
    """The node's virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def check(self) -> None:
        """Raise `InstallError` if the environment does not exist."""
        if not self.python.exists():
            raise InstallError(
                f"There is no {self.folder}. Run scripts/run once to create it, then try again."
            )
        self._engine_file()

    def note(self) -> dict[str, Any] | None:
        """Return the note of an engine that an earlier run installed."""
        path = self._site_packages() / NOTE
        try:
            note: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return note if note.get("engine_sha256") == _sha256(self._engine_file()) else None

    def put_in(self, wheel: Path, facts: dict[str, Any]) -> Path:
        """Replace the engine by that of `wheel`; return the path of the note."""
        self._pip("install", "--force-reinstall", "--no-deps", "--no-index", str(wheel))
        path = self._site_packages() / NOTE
        facts = {**facts, "engine_sha256": _sha256(self._engine_file())}
        path.write_text(json.dumps(facts, indent=2) + "\n")
        return path

    def put_back(self) -> None:
        """Install the package index's wheel again."""
        (self._site_packages() / NOTE).unlink(missing_ok=True)
        pinned = f"pywhispercpp=={VERSION}"
        self._pip("install", "--force-reinstall", "--no-deps", "--only-binary", ":all:", pinned)

    def _site_packages(self) -> Path:
        return self._engine_file().parent

    def _engine_file(self) -> Path:
        code = (
            "import importlib.util as u, sys;"
            "s = u.find_spec('_pywhispercpp'); sys.exit(3) if s is None else print(s.origin)"
        )
        done = subprocess.run(
            [str(self.python), "-I", "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise InstallError(
                f"{self.folder} contains no speech engine. Remove the folder and run scripts/run."
            )
        return Path(done.stdout.strip())

    def _pip(self, *arguments: str) -> None:
        command = [str(self.python), "-I", "-m", "pip", *arguments, "-q"]
        command.append("--disable-pip-version-check")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InstallError(
                f"pip {arguments[0]} failed:\n{done.stderr.strip()}\n"
                f"If the engine no longer works, remove {self.folder} and run scripts/run."
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
