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
        "the wheel. Needs a C++ compiler; takes about ten minutes on two cores, with --quick about "
        "one.",
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="build and install the usually best one, native+tinyblas, without a comparison",
    )
    add(
        "--model",
        type=Path,
        help="ggml model for the comparison (default: models/ggml-tiny.en-q8_0.bin, or else the "
        "smallest file there)",
    )
    add("--venv", type=Path, default=ROOT / ".venv", help="environment to install it in")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    add(
        "--scratch",
        type=Path,
        help="folder to build in and keep for a later run (default: a temporary folder)",
    )
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
    model = arguments.model or _model()
    if not model.exists():
        raise BuildError(
            f"There is no model {model}. Run scripts/run once to download it, or pass --model."
        )
    if not recipes.has_openmp_runtime():
        raise BuildError(
            "The OpenMP run time is missing. Install it (Debian: sudo apt install libgomp1) and "
            "run scripts/build_engine again."
        )
    with _scratch(arguments) as folder:
        shop = Workshop(folder, environment.python, not arguments.no_patches)
        build = _build_quickly if arguments.quick else _build_and_race
        return build(arguments, environment, model, shop)


def _model() -> Path:
    folder = ROOT / "models"
    usual = folder / "ggml-tiny.en-q8_0.bin"
    if usual.exists():
        return usual
    return min(folder.glob("ggml-*.bin"), key=lambda path: path.stat().st_size, default=usual)


@contextlib.contextmanager
def _scratch(arguments: argparse.Namespace) -> Iterator[Path]:
    """The folder to build in: --scratch, or a temporary one."""
    folder = arguments.scratch or Path(tempfile.mkdtemp(prefix="build_engine-"))
    try:
        yield folder
    finally:
        if arguments.scratch is None:
            shutil.rmtree(folder, ignore_errors=True)


def _build_quickly(
    arguments: argparse.Namespace, environment: Environment, model: Path, shop: Workshop
) -> int:
    recipe = recipes.TINYBLAS
    _say("Downloading the tools and the source distribution ...")
    shop.prepare()
    _say(f"Building {recipe.name} ({recipe.why}) ...")
    wheel = shop.build_wheel(recipe)
    # It must transcribe before it replaces an engine that does.
    engine = contest.Entrant(recipe.name, shop.unpack(wheel))
    tried = _race(arguments, environment, [engine], model, workloads=())
    if arguments.dry_run:
        print(f"{recipe.name} works; it is in {wheel}.")
        return 0
    _install(arguments, environment, shop, recipe, wheel, model, tried)
    print(f"{recipe.name} is installed in {environment.folder}. Restart the node to use it.")
    print("scripts/build_engine --restore installs the wheel again.")
    return 0


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
    _say(f"Comparing with {model.name}, {arguments.threads} threads, {_processor()}:")
    result = _race(arguments, environment, entrants, model)
    print(_table(result))
    best, reasons = result.choose(wheels)
    for name, reason in reasons.items():
        print(f"{name} is not chosen: {reason}")
    if arguments.dry_run:
        print(f"{best or 'the wheel'} is best.")
        return 0
    if best is None:
        if environment.note() is not None:
            environment.put_back()
        print("No candidate is better: the wheel stays installed.")
        return 0
    recipe = next(recipe for recipe in candidates if recipe.name == best)
    _install(arguments, environment, shop, recipe, wheels[best], model, result)
    kinds = " and ".join(f"{ratio:.2f} on {kind}" for kind, ratio in result.kinds(best).items())
    print(f"{best} is installed in {environment.folder}: the wheel's speed times {kinds}.")
    print("Restart the node to use it. scripts/build_engine --restore installs the wheel again.")
    return 0


def _install(
    arguments: argparse.Namespace,
    environment: Environment,
    shop: Workshop,
    recipe: recipes.Recipe,
    wheel: Path,
    model: Path,
    result: contest.Contest,
) -> None:
    facts = _facts(recipe, shop, result, model, arguments.threads)
    note = environment.put_in(wheel, facts)
    # It must also work at its final place, beside the environment's own libraries.
    try:
        engine = contest.Entrant(recipe.name, note.parent)
        final = _race(arguments, environment, [engine], model, workloads=())
        if final.system_info != {recipe.name: result.system_info[recipe.name]}:
            raise ContestError(f"the environment loads another engine: {final.system_info}")
    except (ChildError, ContestError) as error:
        environment.put_back()
        raise BuildError(
            f"{recipe.name} does not work in {environment.folder} ({error}); the wheel is "
            "installed again. Please report this."
        ) from error


def _race(
    arguments: argparse.Namespace,
    environment: Environment,
    entrants: Sequence[contest.Entrant],
    model: Path,
    workloads: Sequence[contest.Workload] = contest.WORKLOADS,
) -> contest.Contest:
    clip = ROOT / "tests" / "audio" / "jfk.flac"
    python, threads = environment.python, arguments.threads
    return contest.race(python, entrants, model, clip, threads, workloads)


def _candidates(arguments: argparse.Namespace) -> list[recipes.Recipe]:
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
    recipe: recipes.Recipe, shop: Workshop, result: contest.Contest, model: Path, threads: int
) -> dict[str, object]:
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False)
    return {
        "recipe": recipe.name,
        "options": list(recipe.options),
        "source": f"pywhispercpp-{workshop.VERSION}.tar.gz",
        "source_sha256": workshop.SDIST_SHA256,
        "patches": shop.patch_names,
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
    rows += ["", "| engine | times the wheel's speed on commands | on files |", "|---|---|---|"]
    for name in dict.fromkeys(out.entrant for out in result.outcomes):
        kinds = result.kinds(name)
        rows.append(f"| {name} | {kinds[contest.COMMANDS]:.2f} | {kinds[contest.FILES]:.2f} |")
    return "\n".join(rows)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
