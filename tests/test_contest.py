"""scripts/build_engine: the choice between engines, and the quick build without a choice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from engine_build import cli, contest
from engine_build.child import ChildError
from engine_build.contest import COMMANDS, FILES, Contest, Entrant, Outcome, Workload
from engine_build.workshop import Workshop

ROOT = Path(__file__).resolve().parent.parent
SPEEDS = {COMMANDS: ("3 s", "11 s"), FILES: ("29 s", "29 s more")}


def result(**speeds: tuple[float, float]) -> Contest:
    """A contest in which each engine has one speed-up for commands and one for files."""
    outcomes = [
        Outcome(name, workload, kind, 1.0, 1.0, speed, speed)
        for name, both in {"wheel": (1.0, 1.0), **speeds}.items()
        for kind, speed in zip((COMMANDS, FILES), both, strict=True)
        for workload in SPEEDS[kind]
    ]
    return Contest(tuple(outcomes), dict.fromkeys(speeds, ""), {})


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        # The measured case: OpenBLAS wins commands without flash attention and loses files.
        ({"tiny": (1.3, 1.7), "blas": (1.5, 1.1)}, "tiny"),
        ({"tiny": (1.3, 1.7), "blas": (1.4, 1.8)}, "blas"),
        # Not clearly better: the engine with fewer libraries stays.
        ({"tiny": (1.3, 1.7), "blas": (1.31, 1.71)}, "tiny"),
        # Files make up for a loss within the noise, but not for a real one.
        ({"tiny": (0.98, 1.2)}, "tiny"),
        ({"tiny": (0.95, 1.5)}, None),
        ({"tiny": (1.02, 1.02)}, None),
        ({"tiny": (0.9, 1.5), "blas": (1.1, 1.1)}, "blas"),
        ({}, None),
    ],
)
def test_choice_weighs_commands_and_files_alike(
    speeds: dict[str, tuple[float, float]], best: str | None
) -> None:
    chosen, reasons = result(**speeds).choose(speeds)
    assert chosen == best
    assert set(reasons) == set(speeds) - {best}


def test_choice_rejects_an_engine_that_does_not_work() -> None:
    measured = result(tiny=(1.3, 1.7))
    broken = Contest(measured.outcomes, {}, {"blas": "does not work: no text"})
    assert broken.choose(["blas", "tiny"]) == ("tiny", {"blas": "does not work: no text"})


def test_kinds_are_compared_by_workload() -> None:
    ratios = result(tiny=(1.2, 1.5), blas=(1.5, 1.2)).kinds("blas", "tiny")
    assert ratios == pytest.approx({COMMANDS: 1.25, FILES: 0.8})


class Runner:
    """Stands for a process of trial.py: each run takes the engine's time."""

    SECONDS: ClassVar = {"wheel": 2.0, "fast": 1.0, "silent": 1.0}
    runs: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, python: Path, entrant: Entrant, arguments: Any) -> None:
        self.name = entrant.name

    def loaded(self) -> dict[str, Any]:
        return {"system_info": self.name}

    def run(self, workload: Workload) -> dict[str, Any]:
        if self.name == "dead":
            raise ChildError("status -11")
        self.runs.append((workload.name, self.name))
        text = "" if self.name == "silent" else "Ask not what your country can do for you."
        return {"seconds": self.SECONDS[self.name], "cpu": 1.0, "text": text}

    def close(self) -> None:
        pass


def test_engines_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "_Runner", Runner)
    Runner.runs = []
    entrants = [Entrant(name, Path()) for name in ("wheel", "fast", "silent", "dead")]
    work = Workload("work", COMMANDS, 3, False, 3)
    found = contest.race(Path(), entrants, Path(), Path(), 2, (work,), progress=lambda _: None)
    assert [(out.entrant, out.speed_up) for out in found.outcomes] == [("wheel", 1), ("fast", 2)]
    assert set(found.wrong) == {"silent", "dead"}
    counted = [name for workload, name in Runner.runs if workload == "work"]
    assert counted == ["wheel", "fast", "wheel", "fast", "fast", "wheel", "wheel", "fast"]


def test_workloads_cover_both_kinds_and_text_before_a_window() -> None:
    kinds = {(work.kind, work.follows) for work in contest.WORKLOADS}
    assert kinds == {(COMMANDS, False), (FILES, False), (FILES, True)}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with this test's engine, whose builds are made without a compiler."""
    site = tmp_path / "venv" / "site"
    site.mkdir(parents=True)
    (site / "_pywhispercpp.so").write_bytes(b"wheel")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir()
    # It answers where the engine is, and "installs" the wheel that pip is given.
    python.write_text(
        f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n"
        f"site = Path({str(site)!r})\n"
        "if '-m' in sys.argv:\n"
        "    wheel = next((a for a in sys.argv if a.endswith('.whl')), None)\n"
        "    text = Path(wheel).read_bytes() if wheel else b'wheel'\n"
        "    (site / '_pywhispercpp.so').write_bytes(text)\n"
        "else:\n    print(site / '_pywhispercpp.so')\n"
    )
    python.chmod(0o755)
    wheel = tmp_path / "engine.whl"
    wheel.write_bytes(b"built")
    monkeypatch.setattr(Workshop, "prepare", lambda self: None)
    monkeypatch.setattr(Workshop, "build_wheel", lambda self, recipe: wheel)
    monkeypatch.setattr(Workshop, "unpack", lambda self, wheel: wheel.parent)
    monkeypatch.setattr(contest, "_Runner", Runner)
    monkeypatch.setitem(Runner.SECONDS, "native+tinyblas", 1.0)
    return site


def test_quick_build_is_installed_without_a_comparison(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Runner.runs = []
    model = ROOT / "tests" / "audio" / "jfk.flac"  # any file that exists
    arguments = ["--quick", "--venv", str(tmp_path / "venv"), "--model", str(model)]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert (built / "_pywhispercpp.so").read_bytes() == b"wheel"
    assert cli.main(arguments) == 0
    assert (built / "_pywhispercpp.so").read_bytes() == b"built"
    note = json.loads((built / "_pywhispercpp_build.json").read_text())
    assert note["recipe"] == "native+tinyblas"
    assert len(note["patches"]) == 4
    assert "--restore" in capsys.readouterr().out
    # It ran only to show that it works: before the installation, and in its final place.
    assert Runner.runs == [("", "native+tinyblas")] * 3


def test_quick_build_that_fails_leaves_the_wheel(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Runner, workload: Workload) -> dict[str, Any]:
        return {"seconds": 1.0, "cpu": 1.0, "text": "nothing like it"}

    monkeypatch.setattr(Runner, "run", run)
    model = ROOT / "tests" / "audio" / "jfk.flac"
    arguments = ["--quick", "--venv", str(tmp_path / "venv"), "--model", str(model)]
    assert cli.main(arguments) == 1
    assert "nothing like it" in capsys.readouterr().err
    assert (built / "_pywhispercpp.so").read_bytes() == b"wheel"
