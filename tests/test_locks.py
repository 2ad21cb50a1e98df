"""The requirements files are locks of pyproject.toml: one version each, hashes, no index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from locks import blocks, locked
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(ROOT.glob("requirements*.txt"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
DIRECT = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "requirements-announce.txt": EXTRAS["announce"],
    "requirements-convert.txt": EXTRAS["convert"],
    "requirements-media.txt": EXTRAS["media"],
    "requirements-queue.txt": EXTRAS["queue"],
    **{f"requirements-{name}.txt": wanted for name, wanted in PROJECT["dependency-groups"].items()},
}


def applies(requirement: Requirement, python: str, machine: str) -> bool:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def test_every_file_is_a_lock_of_pyproject() -> None:
    assert {path.name for path in FILES} == DIRECT.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_requirements_have_one_version_and_hashes(path: Path) -> None:
    for first, *hashes in blocks(path):
        (specifier,) = Requirement(first).specifier
        assert specifier.operator == "==", first
        assert hashes, first
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_requirements_name_no_index(path: Path) -> None:
    assert not re.search(r"https?:|--(?:extra-)?index|--find-links", path.read_text())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", DIRECT)
def test_locks_satisfy_pyproject(name: str, python: str, machine: str) -> None:
    found: dict[str, str] = {}
    for requirement in locked(ROOT / name):
        if applies(requirement, python, machine):
            package = canonicalize_name(requirement.name)
            (specifier,) = requirement.specifier
            assert found.setdefault(package, specifier.version) == specifier.version
    for text in DIRECT[name]:
        wanted = Requirement(text)
        if applies(wanted, python, machine):
            version = found[canonicalize_name(wanted.name)]
            assert wanted.specifier.contains(version), text


@pytest.mark.parametrize("python", PYTHONS)
def test_files_agree_if_both_are_installed(python: str) -> None:
    together = ("", "-announce", "-convert", "-media", "-queue", "-test")
    versions: dict[str, set[str]] = {}
    for name in together:
        for requirement in locked(ROOT / f"requirements{name}.txt"):
            if applies(requirement, python, "x86_64"):
                package = canonicalize_name(requirement.name)
                versions.setdefault(package, set()).add(str(requirement.specifier))
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}
