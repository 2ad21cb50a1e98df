"""One engine for every processor of an architecture, as in the image.

The extension module contains no CPU code of ggml. Beside it is one library for each set of
instructions (`libggml-cpu-armv8.2_2.so`), and `app/decoding/backends.py` lets ggml load the best
one at start. The wheel does not depend on the machine that builds it, so other machines can use it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from engine_build.installation import NOTE
from engine_build.recipes import NO_EXTRAS, Recipe
from engine_build.workshop import SDIST_SHA256, VERSION, BuildError, Workshop

_COMMON = (
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_NATIVE=OFF",
    # Each library searches for the others in its own folder.
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    # One file for each library, because a wheel turns the links of a versioned name into copies.
    "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",
    "-DCMAKE_SHARED_LINKER_FLAGS=-s",
    "-DCMAKE_MODULE_LINKER_FLAGS=-s",
)

EVERY_CPU = Recipe(
    "every-cpu",
    (*_COMMON, "-DGGML_CPU=OFF"),
    "the extension module alone; ggml's CPU code comes as libraries beside it",
)

_BACKENDS = (*_COMMON, *NO_EXTRAS, "-DGGML_CPU_ALL_VARIANTS=ON", "-DGGML_LLAMAFILE=ON")

_NEED_A_NEW_COMPILER = re.compile(r"ggml-cpu-armv9")
"""Variants with SME, which GCC supports from version 14 on. No supported board has SME."""


def build(shop: Workshop, wheels: Path, cuda: bool = False) -> Path:
    """Build the wheel with its libraries into the folder `wheels`; return its path.

    `cuda` adds ggml's CUDA library; nvcc must be on PATH. Raises BuildError.
    """
    shop.prepare()
    plain = shop.build_wheel(EVERY_CPU)
    libraries = build_backends(shop, cuda)
    return _pack(shop, plain, libraries, wheels)


def build_backends(shop: Workshop, cuda: bool) -> list[Path]:
    """Build ggml's CPU code for each set of instructions that this compiler supports."""
    folder = shop.folder / "backends"
    log = "backends.log"
    cmake = shop.tools.with_name("cmake")
    options = [*_BACKENDS, *(["-DGGML_CUDA=ON"] if cuda else [])]
    configure: list[str | Path] = [cmake, "-S", shop.engine_source / "whisper.cpp", "-B", folder]
    shop.run([*configure, "-GNinja", "-DCMAKE_BUILD_TYPE=Release", *options], log)
    names = variants((folder / "build.ninja").read_text())
    if not names:
        raise BuildError(f"ggml offers no CPU variants for this machine; see {shop.folder / log}.")
    if cuda:
        names.append("ggml-cuda")
    libraries = []
    for name in names:
        try:
            shop.run([cmake, "--build", folder, "--target", name], log)
        except BuildError:
            if _NEED_A_NEW_COMPILER.match(name) is None:
                raise
            print(f"{name} is omitted: this compiler is too old for it.", flush=True)
            continue
        libraries.append(folder / "bin" / f"lib{name}.so")
    return libraries


def variants(ninja: str) -> list[str]:
    """The names of the targets in a build file that are CPU libraries."""
    found = re.findall(r"^build (ggml-cpu-[\w.]+): phony", ninja, re.MULTILINE)
    return sorted({name for name in found if not name.endswith("-feats")})


def _pack(shop: Workshop, plain: Path, libraries: list[Path], wheels: Path) -> Path:
    """Add the libraries and a note that describes the engine to the wheel."""
    scratch = shop.folder / "unpacked"
    shutil.rmtree(scratch, ignore_errors=True)
    shop.run([shop.tools, "-m", "wheel", "unpack", "-d", scratch, plain], "pack.log")
    (folder,) = scratch.iterdir()
    for library in libraries:
        shutil.copy2(library, folder)
    (module,) = folder.glob("_pywhispercpp*.so")
    note = {
        "recipe": EVERY_CPU.name,
        "options": [*EVERY_CPU.options, *_BACKENDS],
        "libraries": [library.name for library in libraries],
        "source": f"pywhispercpp-{VERSION}.tar.gz",
        "source_sha256": SDIST_SHA256,
        "patches": shop.patch_names,
        "engine_sha256": hashlib.sha256(module.read_bytes()).hexdigest(),
    }
    (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n")
    wheels.mkdir(parents=True, exist_ok=True)
    shop.run([shop.tools, "-m", "wheel", "pack", "-d", wheels.resolve(), folder], "pack.log")
    return wheels / plain.name
