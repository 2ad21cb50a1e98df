"""The number of usable processors: the affinity, lowered by the quota of a cgroup (v1 or v2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.startup import cpus


def quota(tmp_path: Path, v2: str | None = None, v1: tuple[str, str] | None = None) -> float | None:
    if v2 is not None:
        (tmp_path / "cpu.max").write_text(v2)
    if v1 is not None:
        (tmp_path / "cpu.cfs_quota_us").write_text(v1[0])
        (tmp_path / "cpu.cfs_period_us").write_text(v1[1])
    return cpus.cgroup_quota(tmp_path / "cpu.max", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("150000 100000", 1.5),
        ("", None),
        ("max", None),
        ("x 100000", None),
        ("100000 0", None),
        ("1 2 3", None),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, text: str, expected: float | None) -> None:
    assert quota(tmp_path, v2=text) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("-1\n", "100000\n"), None),
        (("400000\n", "100000\n"), 4.0),
        (("25000\n", "100000\n"), 0.25),
        (("100000", "0"), None),
        (("", ""), None),
    ],
)
def test_quota_of_cgroup_v1(tmp_path: Path, files: tuple[str, str], expected: float | None) -> None:
    assert quota(tmp_path, v1=files) == expected


def test_quota_is_none_without_a_cgroup(tmp_path: Path) -> None:
    assert quota(tmp_path) is None


def test_quota_of_cgroup_v2_beats_cgroup_v1(tmp_path: Path) -> None:
    assert quota(tmp_path, v2="300000 100000", v1=("100000", "100000")) == 3.0


@pytest.mark.parametrize(
    ("affinity", "text", "expected"),
    [
        (8, "max 100000", 8),
        (8, "200000 100000", 2),
        (8, "150000 100000", 2),
        (8, "10000 100000", 1),
        (2, "800000 100000", 2),
        (1, "max 100000", 1),
    ],
)
def test_available_cpus_is_the_smaller_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, text: str, expected: int
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    monkeypatch.setattr(cpus, "_CGROUP_V2", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(affinity)))
    assert cpus.available_cpus() == expected


def test_available_cpus_counts_the_machine_without_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "_CGROUP_V2", tmp_path / "none")
    monkeypatch.setattr(cpus, "_CGROUP_V1", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpus.available_cpus() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.available_cpus() == 1
