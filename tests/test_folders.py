"""app/model_files/folders.py: a clone keeps its models, an installed package uses the cache."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from app.model_files.folders import ROOT, is_installed, models_folder


def test_models_folder_of_a_clone_is_beside_app() -> None:
    assert not is_installed()
    assert models_folder() == ROOT / "models"


@pytest.mark.parametrize(
    ("cache", "folder"),
    [
        ("/some/cache", "/some/cache/node-whisper/models"),
        ("", "/home/somebody/.cache/node-whisper/models"),
        ("relative", "/home/somebody/.cache/node-whisper/models"),
    ],
)
def test_models_folder_of_an_installed_package_is_the_cache(
    monkeypatch: pytest.MonkeyPatch, cache: str, folder: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/home/somebody")
    site_packages = Path(sysconfig.get_path("purelib")).resolve()
    assert is_installed(site_packages)
    assert models_folder(site_packages) == Path(folder)
