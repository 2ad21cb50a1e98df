"""scripts/build_engine says what the system lacks before it compiles for minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_build.portable import EVERY_CPU
from engine_build.workshop import BuildError, Workshop

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"apt install g\+\+"):
        Workshop(tmp_path / "scratch", Path(sys.executable)).prepare()


def test_without_the_headers_of_python(tmp_path: Path) -> None:
    """As on Debian without python3-dev: the Python says where they would be."""
    shop = Workshop(tmp_path, Path(sys.executable))
    shop.tools.parent.mkdir(parents=True)
    shop.tools.write_text(f"#!/bin/sh\necho {tmp_path}/include\n")
    shop.tools.chmod(0o755)
    with pytest.raises(BuildError, match="apt install python3-dev"):
        shop.build_wheel(EVERY_CPU)
