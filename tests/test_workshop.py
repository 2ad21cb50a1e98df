"""scripts/build_engine reports missing system packages before it compiles for minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_build.portable import EVERY_CPU
from engine_build.workshop import BuildError, Workshop

ROOT = Path(__file__).resolve().parent.parent


def test_build_engine_reports_a_missing_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"apt install g\+\+"):
        Workshop(tmp_path / "scratch", Path(sys.executable)).prepare()


def test_build_engine_reports_missing_python_headers(tmp_path: Path) -> None:
    """Debian without python3-dev is an example: Python names a folder that does not exist."""
    shop = Workshop(tmp_path, Path(sys.executable))
    shop.tools.parent.mkdir(parents=True)
    shop.tools.write_text(f"#!/bin/sh\necho {tmp_path}/include\n")
    shop.tools.chmod(0o755)
    with pytest.raises(BuildError, match="apt install python3-dev"):
        shop.build_wheel(EVERY_CPU)
