"""The name of the engine's build in the log."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from app.decoding.engine_build import describe


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "_pywhispercpp.so"
    path.write_bytes(b"an engine")
    return path


def leave_note(module: Path, note: Any) -> None:
    (module.parent / "_pywhispercpp_build.json").write_text(json.dumps(note))


def test_build_is_unknown_without_a_note(module: Path) -> None:
    assert describe(module) == "wheel"


def test_build_is_read_from_the_note_of_this_engine(module: Path) -> None:
    digest = hashlib.sha256(b"an engine").hexdigest()
    leave_note(module, {"engine_sha256": digest, "recipe": "native+tinyblas"})
    assert describe(module) == "built here: native+tinyblas"


@pytest.mark.parametrize(
    "note", [{"engine_sha256": "0" * 64, "recipe": "native"}, {"recipe": "native"}, [], None]
)
def test_build_ignores_the_note_of_another_engine(module: Path, note: Any) -> None:
    leave_note(module, note)
    assert describe(module) == "wheel"
