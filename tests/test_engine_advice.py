"""app/startup/engine_advice.py: the hint that a built engine would be faster, once at start."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import structlog

from app.startup import engine_advice
from app.startup.engine_advice import Advice, advice, lacking

# The wheels' reports, and the first lines of /proc/cpuinfo on a Zen 4, Haswell, Pi 5 and Pi 4.
WHEEL_X86 = (
    "WHISPER : COREML = 0 | OPENVINO = 0 | CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | "
    "F16C = 1 | FMA = 1 | BMI2 = 1 | OPENMP = 1 | REPACK = 1 |"
)
WHEEL_ARM = "WHISPER : COREML = 0 | OPENVINO = 0 | CPU : NEON = 1 | ARM_FMA = 1 | OPENMP = 1 |"
ZEN4 = "processor\t: 0\nflags\t\t: fpu sse3 avx2 avx512f avx512_vnni fsrm\nbogomips : 1\n"
HASWELL = "processor\t: 0\nflags\t\t: fpu sse3 avx2\n"
PI5 = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 fphp asimdhp asimddp\n"
PI4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\n"


@pytest.mark.parametrize(
    ("system", "cpuinfo", "machine", "lacks"),
    [
        (WHEEL_X86, ZEN4, "x86_64", ["AVX-512", "AVX-512 VNNI"]),
        (WHEEL_X86 + " AVX512 = 1 | AVX512_VNNI = 0 |", ZEN4, "x86_64", ["AVX-512 VNNI"]),
        (WHEEL_X86, HASWELL, "x86_64", []),
        (WHEEL_ARM, PI5, "aarch64", ["dot product", "fp16"]),
        (WHEEL_ARM + " FP16_VA = 1 | DOTPROD = 1 |", PI5, "aarch64", []),
        (WHEEL_ARM, PI4, "aarch64", []),
        (WHEEL_ARM, PI5, "riscv64", []),
        (WHEEL_ARM, "", "aarch64", []),
    ],
)
def test_lacking_instructions_are_those_that_the_processor_has(
    system: str, cpuinfo: str, machine: str, lacks: list[str]
) -> None:
    assert lacking(system, cpuinfo, machine) == lacks


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "build_engine").touch()
    return tmp_path


def given(folder: Path, container: bool = False, engine: str = "wheel") -> Advice | None:
    return advice(engine, WHEEL_X86, folder, container, ZEN4, "x86_64")


def test_advice_names_the_command_for_this_environment(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))
    found = given(clone)
    assert found is not None
    assert found.what_to_do.startswith("run scripts/build_engine --quick: ")
    monkeypatch.setattr(sys, "prefix", "/opt/other")
    found = given(clone)
    assert found is not None
    assert "--quick --venv /opt/other" in found.what_to_do


def test_advice_for_an_installed_package_names_the_repository(tmp_path: Path) -> None:
    found = given(tmp_path)
    assert found is not None
    assert "in a clone of the repository" in found.what_to_do


def test_advice_in_a_container_names_no_command_that_is_missing_there(
    tmp_path: Path, clone: Path
) -> None:
    image = tmp_path / "image"
    found = given(image, container=True)
    assert found is not None
    assert "Dockerfile" in found.what_to_do
    assert "build_engine" not in found.what_to_do
    # A clone in a development container or an LXC machine has it.
    assert given(clone, container=True) == given(clone)


@pytest.mark.parametrize("engine", ["built here: native+tinyblas", "built here: every-cpu, x64"])
def test_built_engine_needs_no_advice(clone: Path, engine: str) -> None:
    assert given(clone, engine=engine) is None


def test_gain_is_stated_only_where_it_was_measured(clone: Path) -> None:
    arm = advice("wheel", WHEEL_ARM, clone, False, PI5, "aarch64")
    assert arm is not None
    assert "not measured" in arm.gain
    x86 = given(clone)
    assert x86 is not None
    table = (engine_advice.ROOT / "docs" / "benchmarks.md").read_text()
    row = re.search(r"^\| native\+tinyblas \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    assert row is not None
    commands, files = (f"{float(figure):.1f}" for figure in row.groups())
    assert f"{commands} times the speed on commands, {files} on long files" in x86.gain


@pytest.mark.parametrize(("cpuinfo", "level"), [(ZEN4, "warning"), (HASWELL, "info"), ("", "info")])
def test_advice_is_a_warning_if_instructions_are_unused(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, level: str
) -> None:
    monkeypatch.setattr(engine_advice, "_cpuinfo", lambda: cpuinfo)
    monkeypatch.setattr(engine_advice.platform, "machine", lambda: "x86_64")
    with structlog.testing.capture_logs() as lines:
        engine_advice.report("wheel", WHEEL_X86)
        engine_advice.report("built here: native", WHEEL_X86)
    (line,) = lines
    assert line["log_level"] == level
    assert line["gain"]
    assert line["advice"]
