"""The scratch folder for builds: tools, sources, and one CMake run after another.

pip installs the tools (CMake, Ninja, setuptools) into a separate environment, so that the system
needs only a C++ compiler and Python's headers. The source distribution has the pinned version, and
pip checks its hash. pywhispercpp's setup.py passes every environment variable to CMake as a
definition, so the build runs with almost no environment variables.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_build.patching import PatchError, apply_patch, patches
from engine_build.recipes import NO_EXTRAS, STATIC, Recipe

VERSION = "1.5.1"
SDIST_SHA256 = "5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5"
TOOLS = (
    "cmake==4.4.4",
    "ninja==1.13.2",
    "packaging==26.3",
    "setuptools==84.2.1",
    "setuptools-scm==10.3.4",
    "vcs-versioning==2.6.0",
    "wheel==0.48.0",
)


class BuildError(Exception):
    """A build failed. The text says what to do next."""


@dataclass(frozen=True)
class Workshop:
    """A scratch folder for builds that belong to one Python interpreter. With `patched` the engine
    is built from the source with the patches of `patching.py`."""

    folder: Path
    python: Path
    patched: bool = True

    @property
    def tools(self) -> Path:
        """The interpreter of the environment with CMake and the other tools."""
        return self.folder / "tools" / "bin" / "python"

    def prepare(self) -> None:
        """Look for a compiler; install the tools and unpack the source."""
        if shutil.which("g++") is None and shutil.which("c++") is None:
            raise BuildError(
                "There is no C++ compiler. Install one (Debian: sudo apt install g++) and try "
                "again."
            )
        self.fetch()

    def fetch(self) -> None:
        """Install the tools and unpack the source, unless an earlier run has done it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "tools" / "complete").exists():
            self._run([self.python, "-m", "venv", "--clear", self.folder / "tools"], "tools.log")
            self._run([self.tools, "-m", "pip", "install", "-q", *TOOLS], "tools.log")
            (self.folder / "tools" / "complete").touch()
        if not self.source.exists():
            self._fetch()
        if self.patched:
            self._patch()

    @property
    def sdist(self) -> Path:
        """The source distribution from the package index."""
        return self.folder / f"pywhispercpp-{VERSION}.tar.gz"

    @property
    def source(self) -> Path:
        """The unpacked source distribution, which contains whisper.cpp, as published."""
        return self.folder / f"pywhispercpp-{VERSION}"

    @property
    def engine_source(self) -> Path:
        """The source that the engine is built from."""
        return self.folder / "patched" / self.source.name if self.patched else self.source

    @property
    def patch_names(self) -> list[str]:
        """The names of the patches in the engine, for the note that describes it."""
        return [patch.stem for patch in patches()] if self.patched else []

    def stock_engine(self) -> Path:
        """The folder with the wheel of the package index, installed separately."""
        target = self.folder / "stock"
        if not target.exists():
            part = self.folder / "stock.part"
            shutil.rmtree(part, ignore_errors=True)
            command = [self.tools, "-m", "pip", "install", "-q", "--no-deps", "--target", part]
            command += ["--only-binary", ":all:", f"pywhispercpp=={VERSION}"]
            self._run(command, "stock.log")
            part.rename(target)
        return target

    def build_wheel(self, recipe: Recipe) -> Path:
        """Build pywhispercpp by `recipe`; return the wheel's path. Takes one to three minutes, or
        nothing if the folder has this build from an earlier run."""
        self._look_for_headers()
        folder = self.folder / f"wheel-{recipe.name}"
        options = " ".join((*STATIC, *NO_EXTRAS, *recipe.options))
        stamp = folder / "complete"
        made_of = " ".join((options, SDIST_SHA256, *self._patch_digests()))
        if stamp.exists() and stamp.read_text() == made_of:
            return next(folder.glob("*.whl"))
        shutil.rmtree(folder, ignore_errors=True)
        if any(" " in option for option in recipe.options):
            raise BuildError(
                f"pywhispercpp's build does not accept a path with a space: {recipe.options}. "
                "Move OpenBLAS elsewhere, or build without it (--no-openblas)."
            )
        command = [self.tools, "-m", "pip", "wheel", "--no-index", "--no-deps"]
        command += ["--no-build-isolation", "-v", "-w", folder, self._packed()]
        self._run(command, f"wheel-{recipe.name}.log", environment=_bare(self, options))
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise BuildError(f"pip made {len(wheels)} wheels instead of one in {folder}.")
        stamp.write_text(made_of)
        return wheels[0]

    def unpack(self, wheel: Path) -> Path:
        """Install a wheel in a folder beside it, for tests before the real installation."""
        target = wheel.parent / "engine"
        shutil.rmtree(target, ignore_errors=True)
        command = [self.tools, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
        self._run([*command, "--target", target, wheel], "unpack.log")
        return target

    def build_server(self, recipe: Recipe) -> Path:
        """Build whisper.cpp's own HTTP server by `recipe`; return the program's path."""
        build = self.folder / f"server-{recipe.name}"
        program = build / "bin" / "whisper-server"
        if program.exists():
            return program
        log = f"server-{recipe.name}.log"
        cmake = self.tools.with_name("cmake")
        configure: list[str | Path] = [cmake, "-S", self.source / "whisper.cpp", "-B", build]
        configure += ["-GNinja", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF"]
        configure += ["-DWHISPER_BUILD_TESTS=OFF", *recipe.options]
        environment = _bare(self, "")
        self._run(configure, log, environment=environment)
        command = [cmake, "--build", build, "--target", "whisper-server"]
        self._run(command, log, environment=environment)
        return program

    def run(self, command: Sequence[str | Path], log: str) -> None:
        """Run one step of a build with almost no environment variables. Its output is appended to
        the file `log` in the folder. Raises BuildError."""
        self._run(command, log, environment=_bare(self, ""))

    def _look_for_headers(self) -> None:
        code = "import sysconfig; print(sysconfig.get_path('include'))"
        command = [str(self.tools), "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        header = Path(done.stdout.strip()) / "Python.h"
        if not header.exists():
            raise BuildError(
                f"There is no {header}. Install Python's headers (Debian: sudo apt install "
                "python3-dev) and try again."
            )

    def _fetch(self) -> None:
        pin = self.folder / "source.txt"
        pin.write_text(f"pywhispercpp=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
        command = [self.tools, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary", ":all:", "--require-hashes", "-r", pin, "-d", self.folder]
        self._run(command, "source.log")
        with tarfile.open(self.sdist) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(self.folder, filter="data")
            else:  # early versions of 3.10 and 3.11 have no filters
                archive.extractall(self.folder)

    def _patch(self) -> None:
        """Make the patched copy of the source, again each time: the patches may have changed."""
        folder = self.engine_source.parent
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.source, self.engine_source)
        try:
            for patch in patches():
                apply_patch(patch, self.engine_source)
        except PatchError as error:
            shutil.rmtree(folder)
            raise BuildError(
                f"{error}. Build the source as it is with --no-patches, or adapt the patch in "
                "scripts/engine_build/patches to this source."
            ) from error

    def _patch_digests(self) -> list[str]:
        used = patches() if self.patched else []
        return [hashlib.sha256(patch.read_bytes()).hexdigest() for patch in used]

    def _packed(self) -> Path:
        """The engine's source as an archive: pip would build a folder in place, and the builds of
        two recipes would then share files."""
        if not self.patched:
            return self.sdist
        archive = self.engine_source.with_name(self.sdist.name)
        if not archive.exists():
            with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
                tar.add(self.engine_source, self.engine_source.name)
        return archive

    def _run(
        self,
        command: Sequence[str | Path],
        log: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        path = self.folder / log
        if environment is None:
            # The tools and the source may have to come through a proxy or from a mirror set here.
            environment = dict(os.environ)
            environment["PATH"] = f"{self.tools.parent}:{environment.get('PATH', os.defpath)}"
        with path.open("ab") as output:
            done = subprocess.run(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.folder,
                check=False,
            )
        if done.returncode != 0:
            tail = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            words = " ".join(str(part) for part in command[:4])
            raise BuildError(f"{words} ... failed; see its output in {path}:\n{tail}")


def _bare(workshop: Workshop, options: str) -> dict[str, str]:
    """The environment variables that a compiler needs; setup.py passes all of them to CMake."""
    environment = {
        "PATH": f"{workshop.tools.parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(workshop.folder),
        "CMAKE_ARGS": options,
        "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0))),
    }
    for name in ("CC", "CXX", "LD_LIBRARY_PATH", "TMPDIR"):
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment
