"""app/model_files/folders.py: a clone keeps its models, an installed package uses the cache."""

from __future__ import annotations

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
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str, folder: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "node_whisper-1.0.dist-info").mkdir()
    assert is_installed(tmp_path)
    assert models_folder(tmp_path) == Path(folder)
