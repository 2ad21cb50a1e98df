"""The base image: Debian for arm64, made of Debian's packages, and a compiler that runs natively.

A build with an emulated compiler takes an hour or more. The kernel also runs amd64 programs in an
arm64 root, so the build uses Debian's cross compiler through mounts, CC and CXX: the version of GCC
that the Dockerfile installs, built for this machine. With `native_compiler=False` the compiler is
emulated like everything else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_build import workshop
from engine_build.workshop import Workshop

ROOT = Path(__file__).resolve().parents[3]

SUITE = "bookworm"
_PYTHON = "3.11"
"""The version of Python in the suite."""

_INCLUDE = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_TRIPLE = "aarch64-linux-gnu"

# The build gets the certificates and package index settings of this machine.
_NETWORK = ("PIP_CERT", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_PROXY")
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


class BaseError(Exception):
    """The base image could not be made."""


@dataclass(frozen=True)
class Base:
    """The base of a build: a root archive, settings, and mounts during the build."""

    archive: Path
    environment: Mapping[str, str]
    mounts: tuple[tuple[Path, str], ...]

    @property
    def digest(self) -> str:
        """A digest of everything that this base is made of."""
        text = f"{self.archive.stat().st_mtime_ns} {sorted(self.environment.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make(cache: Path, native_compiler: bool) -> Base:
    """Return the base, from `cache` if an earlier run has made it. The first run takes minutes."""
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
    wheels, settings = _wheels(cache)
    mounts += [(wheels, "/wheelhouse"), (settings, "/etc/pip.conf")]
    if native_compiler:
        tools = _cross_compiler(cache)
        environment |= {
            "CC": f"/opt/cross/bin/{_TRIPLE}-gcc",
            "CXX": f"/opt/cross/bin/{_TRIPLE}-g++",
        }
        mounts += [
            (tools / "usr" / "bin", "/opt/cross/bin"),
            (tools / "usr" / _TRIPLE, f"/opt/cross/{_TRIPLE}"),
            # libc.so is a linker script that contains absolute paths.
            (tools / "usr" / _TRIPLE, f"/usr/{_TRIPLE}"),
            (tools / "usr" / "lib", "/opt/cross/lib"),
            # An amd64 program looks for its loader and libraries at these paths.
            (tools / "lib64", "/lib64"),
            (tools / "usr" / "lib" / "x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
        ]
    return Base(archive, environment, tuple(mounts))


def requirements(dockerfile: str) -> list[str]:
    """The names of the requirements files that a Dockerfile installs, without those of the stage
    that converts a model: the build gets its model ready-made."""
    return sorted(set(re.findall(r"-r (requirements[\w-]*\.txt)", dockerfile)))


def _wheels(cache: Path) -> tuple[Path, Path]:
    """Return the folder of wheels for the build and the pip.conf that points to it.

    The pip of this machine downloads them: an emulated pip decrypts so slowly that servers close
    the connection. Markers are evaluated by the Python that runs this script, which is correct for
    the Python of SUITE from 3.11 on.
    """
    folder = cache / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 37))]
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
    target += [f"--platform={tag}" for tag in tags]
    files = [ROOT / name for name in requirements((ROOT / "Dockerfile.arm64").read_text())]
    pinned = [word for file in files for word in ("-r", str(file))]
    # A model is converted with packages of this machine, so the build needs none for it.
    wanted = "".join(file.read_text() for file in files)
    wanted += " ".join((*workshop.TOOLS, workshop.SDIST_SHA256))
    stamp = folder / "complete"
    if not (stamp.exists() and stamp.read_text() == wanted):
        # Separate, because files with hashes make pip require one for every package.
        for packages in ([*target, *pinned], [*target, *workshop.TOOLS]):
            done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BaseError(f"pip download failed: {done.stderr.strip()[-800:]}")
        # The same way as scripts/build_engine: pip asks a source distribution for its
        # requirements, and in isolation it would compile CMake for that.
        shop = Workshop(cache / "source", Path(sys.executable), patched=False)
        shop.fetch()
        shutil.copy2(shop.sdist, folder)
        stamp.write_text(wanted)
    settings = cache / "pip.conf"
    settings.write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")
    return folder, settings


def model(cache: Path, name: str) -> Path:
    """Return the folder with the model `name`: models/ of the clone if it is there, otherwise
    `cache`, into which it is downloaded or converted on this machine as scripts/run would do."""
    script = str(ROOT / "scripts" / "download_model.py")
    for folder, options in ((ROOT / "models", ["--offline"]), (cache / "models", [])):
        command = [sys.executable, script, name, "--models-dir", str(folder), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return Path(done.stdout.strip()).parent
    raise BaseError(f"there is no model {name}: {done.stderr.strip()[-800:]}")


def _cross_compiler(cache: Path) -> Path:
    """Debian's arm64 cross compiler for amd64, unpacked but not installed."""
    folder = cache / "cross"
    if not folder.exists():
        part = cache / "cross.part"
        shutil.rmtree(part, ignore_errors=True)
        _mmdebstrap("--architectures=amd64", "--variant=extract", ("libc6", f"g++-{_TRIPLE}"), part)
        # In the root where this is mounted, the two are the same folder.
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
