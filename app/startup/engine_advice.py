"""The hint in the log that an engine built on this machine would be faster than the wheel.

The wheel runs everywhere, so it lacks instructions of this processor and the matrix product that
`scripts/build_engine` switches on. Main thread, once at start.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.model_files.folders import ROOT
from app.network.interfaces import in_container

WHEEL = "wheel"
"""The name in `app/decoding/engine_build.py` for the engine of the package index."""

_GAINS = {
    "x86_64": "1.5 times the speed on commands, 1.5 on long files (measured on an AMD Zen 4)",
}
"""The gain of native+tinyblas over the wheel, from the table in docs/benchmarks.md ("Engines").
Nothing was measured on ARM."""

_NEEDS = "it needs a C++ compiler and about a minute on two cores"

_INSTRUCTIONS = {
    "x86_64": (
        ("AVX2", "avx2", "AVX2"),
        ("AVX512", "avx512f", "AVX-512"),
        ("AVX512_VNNI", "avx512_vnni", "AVX-512 VNNI"),
        ("AVX_VNNI", "avx_vnni", "AVX VNNI"),
    ),
    "aarch64": (
        ("DOTPROD", "asimddp", "dot product"),
        ("FP16_VA", "asimdhp", "fp16"),
        ("MATMUL_INT8", "i8mm", "int8 matrix product"),
    ),
}
"""For each architecture: ggml's name in whisper.cpp's system information, the kernel's name in
/proc/cpuinfo, and the name for people. Those that ggml's products of quantized weights use."""


_log = structlog.get_logger("engine")


@dataclass(frozen=True)
class Advice:
    """What a build would gain, and how to get it. `lacks` are instructions of this processor that
    the engine does not use, separated by commas."""

    lacks: str
    gain: str
    what_to_do: str


def report(engine: str, system: str) -> None:
    """Log the advice for the engine in use, if there is any: a warning if the engine leaves
    instructions of this processor unused."""
    found = advice(engine, system, ROOT, in_container(), _cpuinfo(), platform.machine())
    if found is None:
        return
    if found.lacks:
        _log.warning(
            "the engine leaves instructions of this processor unused",
            unused=found.lacks,
            gain=found.gain,
            advice=found.what_to_do,
        )
    else:
        _log.info("a faster engine can be built", gain=found.gain, advice=found.what_to_do)


def advice(
    engine: str,
    system: str,
    folder: Path,
    container: bool,
    cpuinfo: str,
    machine: str,
) -> Advice | None:
    """Return the advice for an `engine` that reports `system`; None if it is not the wheel.

    `folder` is that of the package `app`: a clone has the script, an installed package does not.
    `cpuinfo` is the text of /proc/cpuinfo, `machine` the architecture as uname names it.
    """
    if engine != WHEEL:
        return None
    lacks = lacking(system, cpuinfo, machine)
    gain = _GAINS.get(machine, "not measured on this architecture")
    return Advice(", ".join(lacks), gain, _what_to_do(folder, container))


def lacking(system: str, cpuinfo: str, machine: str) -> list[str]:
    """Return the names of the processor's instructions that the engine was built without."""
    has = set()
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        # "Features" on ARM. Processors of one machine may differ; the engine runs on any of them.
        if name.strip() in ("flags", "Features"):
            has.update(value.split())
            break
    built_for = {part.split(" = ")[0].strip() for part in system.split("|") if " = 1" in part}
    return [
        name
        for ggml, kernel, name in _INSTRUCTIONS.get(machine, ())
        if kernel in has and ggml not in built_for
    ]


def _what_to_do(folder: Path, container: bool) -> str:
    if (folder / "scripts" / "build_engine").exists():
        other = "" if Path(sys.prefix) == folder / ".venv" else f" --venv {sys.prefix}"
        return f"run scripts/build_engine --quick{other}: {_NEEDS}"
    if container:
        return "use an image of this repository's Dockerfile: its engine fits every processor"
    return f"run scripts/build_engine --quick --venv {sys.prefix} in a clone of the repository"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
