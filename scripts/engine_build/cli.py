"""The command line of scripts/build_engine: build, compare, install, report."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from engine_build import contest, portable, recipes, workshop
from engine_build.child import ChildError
from engine_build.contest import ContestError
from engine_build.installation import Environment, InstallError
from engine_build.workshop import BuildError, Workshop

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except (BuildError, ChildError, ContestError, InstallError) as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/build_engine",
        description="Build the speech engine for this processor, and use it if it is faster than "
        "the wheel. Needs a C++ compiler; takes about ten minutes on two cores.",
    )
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        help="ggml model for the comparison (default: models/ggml-tiny.en-q8_0)",
    )
    add("--venv", type=Path, default=ROOT / ".venv", help="environment to install it in")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    add("--scratch", type=Path, help="folder to build in and keep (default: a temporary folder)")
    add("--openblas", type=Path, metavar="PREFIX", default=Path("/usr"), help="default: /usr")
    add("--no-openblas", action="store_true", help="do not try OpenBLAS")
    add("--native", action="store_true", help="also try the native build without tinyBLAS")
    add(
        "--no-patches",
        action="store_true",
        help="build the published source, without the patches in scripts/engine_build/patches",
    )
    add("--dry-run", action="store_true", help="build and compare, but install nothing")
    add(
        "--restore",
        action="store_true",
        help="install the wheel of the package index again and exit",
    )
    add(
        "--every-cpu",
        type=Path,
        metavar="DIR",
        help="only build a wheel into DIR that runs on every processor of this architecture and "
        "chooses its instructions at run time (used by the image)",
    )
    add("--cuda", action="store_true", help="with --every-cpu: include ggml's CUDA code (untested)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.every_cpu is not None:
        with _scratch(arguments) as folder:
            shop = Workshop(folder, Path(sys.executable), not arguments.no_patches)
            print(portable.build(shop, arguments.every_cpu, arguments.cuda))
        return 0
    environment = Environment(arguments.venv)
    environment.check()
    if arguments.restore:
        environment.put_back()
        _say("The wheel of the package index is installed again.")
        return 0
    model = arguments.model or ROOT / "models" / "ggml-tiny.en-q8_0.bin"
    if not model.exists():
        raise BuildError(
            f"There is no model {model}. Run scripts/run once to download it, or pass --model."
        )
    with _scratch(arguments) as folder:
        shop = Workshop(folder, environment.python, not arguments.no_patches)
        return _build_and_race(arguments, environment, model, shop)


@contextlib.contextmanager
def _scratch(arguments: argparse.Namespace) -> Iterator[Path]:
    """The folder to build in: --scratch, or a temporary one."""
    folder = arguments.scratch or Path(tempfile.mkdtemp(prefix="build_engine-"))
    try:
        yield folder
    finally:
        if arguments.scratch is None:
            shutil.rmtree(folder, ignore_errors=True)


def _build_and_race(
    arguments: argparse.Namespace, environment: Environment, model: Path, shop: Workshop
) -> int:
    candidates = _candidates(arguments)
    _say("Downloading the tools and the source distribution ...")
    shop.prepare()
    entrants = [contest.Entrant("wheel", shop.stock_engine())]
    wheels: dict[str, Path] = {}
    for recipe in candidates:
        _say(f"Building {recipe.name} ({recipe.why}) ...")
        wheels[recipe.name] = shop.build_wheel(recipe)
        entrants.append(contest.Entrant(recipe.name, shop.unpack(wheels[recipe.name])))
    _say(f"Comparing with {model.name}, {arguments.threads} threads:")
    clip = ROOT / "tests" / "audio" / "jfk.flac"
    result = contest.race(environment.python, entrants, model, clip, arguments.threads)
    print(_table(result))
    fit = {name: result.speed_up(name) for name in wheels if result.fault(name) is None}
    for name in wheels:
        if name not in fit:
            print(f"{name} is rejected: {result.fault(name)}")
    if arguments.dry_run:
        return 0
    if not fit:
        if environment.note() is not None:
            environment.put_back()
        print("No candidate is better: the wheel stays installed.")
        return 0
    best = max(fit, key=lambda name: fit[name])
    recipe = next(recipe for recipe in candidates if recipe.name == best)
    facts = _facts(recipe, result, model, arguments.threads)
    note = environment.put_in(wheels[best], facts)
    # It must also work at its final place, beside the environment's own libraries.
    try:
        final = contest.race(
            environment.python,
            [contest.Entrant(best, note.parent)],
            model,
            clip,
            arguments.threads,
            workloads=(),
        )
        if final.system_info[best] != result.system_info[best]:
            raise ContestError(f"the environment loads another engine: {final.system_info[best]}")
    except (ChildError, ContestError) as error:
        environment.put_back()
        raise BuildError(
            f"{best} does not work in {environment.folder} ({error}); the wheel is "
            "installed again. Please report this."
        ) from error
    print(
        f"{best} is installed in {environment.folder}: "
        f"{fit[best]:.2f} times the wheel's speed on average."
    )
    print("scripts/build_engine --restore installs the wheel again.")
    return 0


def _candidates(arguments: argparse.Namespace) -> list[recipes.Recipe]:
    if not recipes.has_openmp_runtime():
        raise BuildError(
            "The OpenMP run time is missing. Install it (Debian: sudo apt install libgomp1) and "
            "run scripts/build_engine again."
        )
    candidates = [recipes.NATIVE] if arguments.native else []
    candidates.append(recipes.TINYBLAS)
    if not arguments.no_openblas:
        blas = recipes.find_openblas(arguments.openblas)
        if blas is None:
            _say(
                f"There is no OpenBLAS with headers under {arguments.openblas}; building without "
                "it (Debian: sudo apt install libopenblas-dev)."
            )
        else:
            candidates.append(recipes.with_openblas(blas))
    return candidates


def _facts(
    recipe: recipes.Recipe, result: contest.Contest, model: Path, threads: int
) -> dict[str, object]:
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False)
    return {
        "recipe": recipe.name,
        "options": list(recipe.options),
        "source": f"pywhispercpp-{workshop.VERSION}.tar.gz",
        "source_sha256": workshop.SDIST_SHA256,
        "compiler": compiler.stdout.partition("\n")[0],
        "machine": platform.machine(),
        "processor": _processor(),
        "system_info": result.system_info[recipe.name],
        "built_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "measured_with": {"model": model.name, "threads": threads},
        "measured": [asdict(out) for out in result.outcomes if out.entrant == recipe.name],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _table(result: contest.Contest) -> str:
    rows = ["| | engine | median s | CPU s | times the wheel's speed | wheel's CPU / its CPU |"]
    rows.append("|---|---|---|---|---|---|")
    rows += (
        f"| {out.workload} | {out.entrant} | {out.median_seconds:.3f} | "
        f"{out.median_cpu_seconds:.3f} | {out.speed_up:.2f} | {out.cpu_ratio:.2f} |"
        for out in result.outcomes
    )
    return "\n".join(rows)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
