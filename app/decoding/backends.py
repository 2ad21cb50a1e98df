"""The choice of ggml's CPU library for this processor, once, before the first model is loaded.

An engine built for every processor (`scripts/build_engine --every-cpu`, the image) has no CPU code
of its own, but one library per set of instructions in the same folder. ggml scores them on this
processor and keeps the best. It aborts the process if a model is loaded before that. The package
index's wheel and an engine built on the board itself have no such libraries and need no choice.
Main thread, at start.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path

from app.decoding.transcriber import EngineError

_LIBRARIES = "libggml-cpu-*.so"

_CPU = 0
"""GGML_BACKEND_DEVICE_TYPE_CPU of ggml-backend.h."""


@functools.cache
def load(module: Path) -> str | None:
    """Make ggml load a library from the folder of the extension module `module`.

    The module must be imported already. Returns the library's name, such as `armv8.2_2`; None if
    there are no libraries. Raises `EngineError` if none fits this processor or can be loaded.
    """
    folder = module.resolve().parent
    offered = sorted(_name(path) for path in folder.glob(_LIBRARIES))
    if not offered:
        return None
    try:
        # The extension module has loaded this library; the handle refers to the same one.
        ggml = ctypes.CDLL(str(folder / "libggml.so"))
        load_all, find_device = ggml.ggml_backend_load_all_from_path, ggml.ggml_backend_dev_by_type
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"{folder} has libraries for {', '.join(offered)}, but no libggml.so that loads them "
            f"({error}); reinstall the engine"
        ) from error
    load_all.argtypes, load_all.restype = [ctypes.c_char_p], None
    find_device.argtypes, find_device.restype = [ctypes.c_int], ctypes.c_void_p
    load_all(os.fsencode(folder))
    if find_device(_CPU) is None:
        raise EngineError(
            f"none of the engine's CPU libraries works on this {platform.machine()} processor: "
            f"{folder} has {_LIBRARIES} for {', '.join(offered)}; install an engine for this "
            "machine, or libgomp1 if it is missing"
        )
    return _mapped(folder)


def _mapped(folder: Path) -> str | None:
    """Return the name of the library in memory: ggml unloads the others and reports no choice."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line[line.find("/") :])
        if path.parent == folder and path.match(_LIBRARIES):
            return _name(path)
    return None


def _name(path: Path) -> str:
    return path.stem.removeprefix("libggml-cpu-")
