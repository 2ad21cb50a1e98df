"""The number of engines: within the processors and the free memory, or a clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.model_files.catalog import ModelFile
from app.startup import memory
from app.startup.engines import TooManyEngines, count, need_bytes

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    path = tmp_path / "own.bin"
    path.write_bytes(bytes(60 * MIB))
    return ModelFile(path, "own")


def test_need_of_a_model_is_the_catalogues_or_estimated(file: ModelFile) -> None:
    assert need_bytes(file) == 300 * MIB
    tiny = need_bytes(ModelFile(file.path, "tiny.en-q8_0"))
    assert 200 * MIB < tiny < need_bytes(ModelFile(file.path, "small-q8_0")) < 1000 * MIB


@pytest.mark.parametrize(
    ("threads", "free", "engines"),
    [
        (1, 8000, 1),
        (2, 8000, 2),
        (3, 8000, 2),
        (4, 8000, 2),
        (8, 8000, 4),
        (64, 64_000, 8),
        (2, 700, 1),
        (2, 760, 2),
        (8, 1200, 3),
        (8, 0, 1),
        (4, None, 2),
    ],
)
def test_auto_stays_within_processors_and_memory(
    file: ModelFile, threads: int, free: int | None, engines: int
) -> None:
    with capture_logs() as log:
        assert count("auto", file, threads, None if free is None else free * MIB) == engines
    [entry] = log
    assert (entry["event"], entry["engines"], entry["mib_each"]) == ("engines chosen", engines, 300)
    assert entry["mib_free"] == free


def test_number_that_fits_is_taken(file: ModelFile) -> None:
    assert count(3, file, 4, 900 * MIB) == 3
    assert count(3, file, 4, None) == 3
    # One engine is not checked: the node has always tried to load its model.
    assert count(1, file, 1, 0) == 1


def test_more_engines_than_processors_are_rejected(file: ModelFile) -> None:
    with pytest.raises(TooManyEngines, match=r"--engines 3: .* --threads is 2; use at most 2"):
        count(3, file, 2, None)


def test_more_engines_than_memory_are_rejected(file: ModelFile) -> None:
    with pytest.raises(TooManyEngines, match=r"300 MiB, and 899 MiB are free; use at most 2"):
        count(3, file, 4, 899 * MIB)


# Free memory.


class Machine:
    """Files as the kernel has them. Limits in MiB."""

    def __init__(self, tmp_path: Path) -> None:
        self.meminfo = tmp_path / "meminfo"
        self.groups = tmp_path / "cgroup"
        self.mount = tmp_path / "mount"
        self.mount.mkdir()
        self.meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable:    4096000 kB\n")

    def limit(self, group: str, most: str, used: int) -> None:
        folder = self.mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(most if most == "max" else str(int(most) * MIB))
        (folder / "memory.current").write_text(str(used * MIB))

    @property
    def free_mib(self) -> int | None:
        free = memory.free_bytes(self.meminfo, self.groups, self.mount)
        return None if free is None else free // MIB


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_free_memory_is_that_of_the_machine_without_limits(machine: Machine) -> None:
    assert machine.free_mib == 4000
    machine.limit("system.slice", "max", 100)
    machine.groups.write_text("0::/system.slice/node.service\n")
    assert machine.free_mib == 4000


def test_each_group_above_the_process_limits_it(machine: Machine) -> None:
    machine.groups.write_text("0::/system.slice/node.service\n")
    machine.limit("system.slice/node.service", "1000", 100)
    assert machine.free_mib == 900
    machine.limit("system.slice", "600", 400)
    assert machine.free_mib == 200
    machine.limit("other.slice", "100", 100)
    assert machine.free_mib == 200
    machine.limit("system.slice", "600", 700)
    assert machine.free_mib == 0


def test_container_sees_its_group_at_the_mount(machine: Machine) -> None:
    machine.groups.write_text("0::/../../docker/abc\n")
    machine.limit("", "512", 12)
    assert machine.free_mib == 500


@pytest.mark.parametrize("path", ["", "docker/abc", "docker"])
def test_group_of_version_1_limits_it(machine: Machine, path: str) -> None:
    machine.groups.write_text("5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    folder = machine.mount / "memory" / path
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(300 * MIB))
    (folder / "memory.usage_in_bytes").write_text(str(50 * MIB))
    assert machine.free_mib == 250


@pytest.mark.parametrize("text", ["", "MemAvailable:\n", "MemAvailable: x kB\n"])
def test_unreadable_files_give_no_number(machine: Machine, text: str) -> None:
    machine.meminfo.write_text(text)
    assert machine.free_mib is None
    machine.meminfo.unlink()
    assert machine.free_mib is None


def test_memory_of_this_machine_is_known() -> None:
    free = memory.free_bytes()
    assert free is None or free > MIB
