"""The node as an installed package: complete, and independent of the current folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package was installed, without its dependencies."""
    pytest.importorskip("setuptools", "77", "needs setuptools 77 (requirements-test.txt has it)")
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(ROOT / "app", source / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    target = ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    subprocess.run([*pip, *target], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "HOME": str(cwd), "XDG_CACHE_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_starts_beside_a_folder_named_app(site: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')\n")
    done = run(site, tmp_path, str(site / "bin" / "node-whisper"), "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("node-whisper ")


def test_offline_start_without_a_model_names_the_folder(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, str(site / "bin" / "node-whisper"), "--offline", "-m", "base")
    assert done.returncode == 1
    assert str(tmp_path / ".cache" / "node-whisper" / "models") in done.stderr


def test_catalogue_page_and_types_are_installed(site: Path) -> None:
    for folder, suffixes in {"page": (".html", ".css", ".js"), "model_files": (".json",)}.items():
        wanted = {
            path.name for path in (ROOT / "app" / folder).iterdir() if path.suffix in suffixes
        }
        assert wanted
        assert wanted <= {path.name for path in (site / "app" / folder).iterdir()}
    assert (site / "app" / "py.typed").is_file()
