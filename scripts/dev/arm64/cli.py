"""The command line of scripts/dev/verify_arm64: base, build, run, checks, report."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from engine_build.workshop import BuildError

from arm64 import base, checks, mirror
from arm64.base import BaseError
from arm64.builder import Builder, BuilderError, Layer
from arm64.emulation import EmulationError, emulated

ROOT = Path(__file__).resolve().parents[3]

PACKAGES = {
    "buildah": "buildah",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "/usr/libexec/qemu-binfmt/aarch64-binfmt-P": "qemu-user-static",
}
"""Required programs and the Debian packages that contain them."""

_BASE = "localhost/node-whisper-base"
_IMAGE = "localhost/node-whisper"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        return _fail(f"install {' '.join(missing)} (Debian: apt install --no-install-recommends)")
    if os.geteuid() != 0:
        return _fail("run it as root: it registers QEMU with the kernel and mounts images")
    try:
        with emulated():
            return _verify(arguments)
    except (BaseError, BuildError, BuilderError, EmulationError) as error:
        return _fail(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/dev/verify_arm64",
        description="Build the arm64 image with the real Dockerfile under QEMU, run it, and check "
        "it. Prints a report in Markdown; exits with status 1 if a check fails.",
    )
    add = parser.add_argument
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    add(
        "--cache",
        type=Path,
        default=home / "node-whisper" / "arm64",
        help="folder for the base and the layers, a few GB (default: %(default)s)",
    )
    add(
        "--emulate-compiler",
        action="store_true",
        help="also emulate the compiler, like Docker: takes an hour or more instead of minutes",
    )
    add("--model", default="tiny.en", help="the model in the image (default: %(default)s)")
    add("--skip-build", action="store_true", help="check the image of an earlier run")
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    cache: Path = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    builder = Builder(cache / "containers")
    if not arguments.skip_build:
        began = time.monotonic()
        _say(f"Looking for {arguments.model} ...")
        model = base.model(cache, arguments.model)
        _say("Making the base, Debian for arm64 ...")
        root = base.make(cache, native_compiler=not arguments.emulate_compiler)
        # Named by its content: a new base would invalidate every layer on it.
        name = f"{_BASE}:{root.digest}"
        if not builder.has(name):
            builder.import_root(root.archive, name, root.environment)
        log = cache / "build.log"
        _say(f"Building Dockerfile.arm64 (its output goes to {log}) ...")
        with mirror.serving(model) as endpoint:
            chosen = {"BASE": name, "MODEL": arguments.model, "HF_ENDPOINT": endpoint}
            builder.build(ROOT, _IMAGE, chosen, root.mounts, log)
        _say(f"Built in {(time.monotonic() - began) / 60:.0f} minutes.")
    config = builder.config(_IMAGE)
    container, folder = builder.container(_IMAGE)
    failed = 0
    try:
        for check in checks.run(folder, config):
            failed += not check.holds
            print(f"- {'ok' if check.holds else 'FAILED'}: {check.name} ({check.seen})", flush=True)
    finally:
        builder.remove(container)
    print(_table(builder.layers(_IMAGE)))
    return 1 if failed else 0


def _table(layers: Sequence[Layer]) -> str:
    rows = ["", "| layer | MB | compressed, MB |", "|---|--:|--:|"]
    for layer in layers:
        made = " ".join(layer.created_by.replace("|", "/").split())[:90]
        rows.append(f"| {made} | {layer.bytes / 1e6:.1f} | {layer.compressed / 1e6:.1f} |")
    total, packed = sum(x.bytes for x in layers), sum(x.compressed for x in layers)
    rows.append(f"| all | {total / 1e6:.1f} | {packed / 1e6:.1f} |")
    return "\n".join(rows)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(line: str) -> int:
    print(f"verify_arm64: {line}", file=sys.stderr)
    return 1
