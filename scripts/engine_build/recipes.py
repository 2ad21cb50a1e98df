"""The recipes: each is a name, its CMake options, and the reason why it may help.

docs/lab-book.md has figures for each, and for those that were tried and rejected. The engine is
linked statically into one extension module, so that no run path and no partly replaced library can
break it. It needs only libraries of the system: libgomp, and OpenBLAS in some recipes.
"""

from __future__ import annotations

import ctypes.util
from dataclasses import dataclass
from pathlib import Path

STATIC = ("-DBUILD_SHARED_LIBS=OFF", "-DCMAKE_POSITION_INDEPENDENT_CODE=ON")
NO_EXTRAS = (
    "-DWHISPER_BUILD_TESTS=OFF",
    "-DWHISPER_BUILD_EXAMPLES=OFF",
    "-DWHISPER_BUILD_SERVER=OFF",
)


@dataclass(frozen=True)
class OpenBlas:
    """The files of Debian's libopenblas-dev, installed or unpacked, that a build needs."""

    library: Path
    headers: Path


@dataclass(frozen=True)
class Recipe:
    """One way to build the engine."""

    name: str
    options: tuple[str, ...]
    why: str


NATIVE = Recipe(
    "native",
    ("-DGGML_NATIVE=ON",),
    "all instructions this processor has (AVX-512, VNNI, dot product, fp16), nothing else changed",
)

TINYBLAS = Recipe(
    "native+tinyblas",
    ("-DGGML_NATIVE=ON", "-DGGML_LLAMAFILE=ON"),
    "ggml's own blocked matrix multiplication, which whisper.cpp leaves off",
)


def with_openblas(blas: OpenBlas) -> Recipe:
    """OpenBLAS for large products (32 rows and up); ggml expands quantized weights to float32."""
    return Recipe(
        "native+tinyblas+openblas",
        (
            *TINYBLAS.options,
            "-DGGML_BLAS=ON",
            "-DGGML_BLAS_VENDOR=OpenBLAS",
            f"-DBLAS_LIBRARIES={blas.library}",
            f"-DBLAS_INCLUDE_DIRS={blas.headers}",
        ),
        "OpenBLAS for the encoder's large products",
    )


def find_openblas(prefix: Path = Path("/usr")) -> OpenBlas | None:
    """Return the library and headers of OpenBLAS under `prefix`, or None if either is missing."""
    headers = sorted((prefix / "include").glob("**/cblas.h"))
    libraries = [
        library
        for folder in ("lib", "lib64")
        for library in sorted((prefix / folder).glob("**/libopenblas.so"))
    ]
    for library in libraries:
        # Debian keeps the three builds (serial, pthread, openmp) in folders of the same name.
        named = [path for path in headers if path.parent.name == library.parent.name]
        chosen = named or [path for path in headers if "openblas" in str(path)] or headers
        if chosen:
            return OpenBlas(library, chosen[0].parent)
    return None


def has_openmp_runtime() -> bool:
    """Whether the system has libgomp, which an engine built with GCC needs at run time."""
    return ctypes.util.find_library("gomp") is not None
