"""The base image: Debian for arm64, made of Debian's packages, and a compiler that runs natively.

Compiling under emulation takes an hour or more. The kernel runs amd64 programs in an arm64 root as
well as anywhere, so the build gets Debian's own cross compiler (the same version of GCC that the
Dockerfile installs, made for this machine) by mounts and CC and CXX. `native_compiler=False` leaves
it out, and the compiler is emulated like everything else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
_INCLUDE = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_TRIPLE = "aarch64-linux-gnu"

# How this machine reaches package indexes, handed on to the build.
_NETWORK = ("PIP_CERT", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_PROXY")
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


class BaseError(Exception):
    """The base could not be made."""


@dataclass(frozen=True)
class Base:
    """What a build starts from: a root archive, settings, and what is mounted while it runs."""

    archive: Path
    environment: Mapping[str, str]
    mounts: tuple[tuple[Path, str], ...]


def make(cache: Path, native_compiler: bool) -> Base:
    """The base, from `cache` where an earlier run has left it there. Takes minutes at first."""
    archive = cache / f"{SUITE}-arm64.tar"
    if not archive.exists():
        part = cache / f"{SUITE}-arm64.part.tar"
        _mmdebstrap("--architectures=arm64", "--variant=minbase", _INCLUDE, part)
        part.rename(archive)
    environment = {name: os.environ[name] for name in _NETWORK if os.environ.get(name)}
    mounts: list[tuple[Path, str]] = []
    for name in _BUNDLES:
        path = os.environ.get(name)
        if path and Path(path).is_file():
            environment[name] = path
            if (Path(path), path) not in mounts:
                mounts.append((Path(path), path))
    if Path("/etc/pip.conf").is_file():
        mounts.append((Path("/etc/pip.conf"), "/etc/pip.conf"))
    if native_compiler:
        tools = _cross_compiler(cache)
        environment |= {
            "CC": f"/opt/cross/bin/{_TRIPLE}-gcc",
            "CXX": f"/opt/cross/bin/{_TRIPLE}-g++",
        }
        mounts += [
            (tools / "usr" / "bin", "/opt/cross/bin"),
            (tools / "usr" / _TRIPLE, f"/opt/cross/{_TRIPLE}"),
            # libc.so is a script for the linker, which names it absolutely.
            (tools / "usr" / _TRIPLE, f"/usr/{_TRIPLE}"),
            (tools / "usr" / "lib", "/opt/cross/lib"),
            # Where an amd64 program looks for its loader and its libraries.
            (tools / "lib64", "/lib64"),
            (tools / "usr" / "lib" / "x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
        ]
    return Base(archive, environment, tuple(mounts))


def _cross_compiler(cache: Path) -> Path:
    """Debian's arm64 compiler for amd64, unpacked and not installed."""
    folder = cache / "cross"
    if not folder.exists():
        part = cache / "cross.part"
        shutil.rmtree(part, ignore_errors=True)
        _mmdebstrap("--architectures=amd64", "--variant=extract", ("libc6", f"g++-{_TRIPLE}"), part)
        # In the root that this is mounted into the two are one folder.
        libraries = Path("lib") / "x86_64-linux-gnu"
        shutil.copytree(
            part / libraries, part / "usr" / libraries, symlinks=True, dirs_exist_ok=True
        )
        part.rename(folder)
    return folder


def _mmdebstrap(architecture: str, variant: str, include: tuple[str, ...], target: Path) -> None:
    command = ["mmdebstrap", "--mode=root", "--quiet", architecture, variant]
    command += [f"--include={','.join(include)}", SUITE, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BaseError(f"mmdebstrap failed: {done.stderr.strip()[-800:]}")
