"""Which of ggml's CPU builds this processor gets: chosen once, before the first model is loaded.

An engine built for every processor (`scripts/build_engine --every-cpu`, the image) has no CPU code
of its own; beside it lies one library per set of instructions, and ggml aborts the process if a
model is loaded before one of them is. ggml scores them on this processor and keeps the best. The
package index's wheel, and an engine built on the board itself, have no such libraries: for them
there is nothing to do. Main thread, at start; asked again, it answers the same.
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
    """Have ggml load what lies beside the extension module `module`, which is imported already.

    The name of what was chosen, such as `armv8.2_2`; None where there is nothing to choose. Raises
    `EngineError` where nothing fits this processor, or the libraries cannot be used.
    """
    folder = module.resolve().parent
    offered = sorted(_name(path) for path in folder.glob(_LIBRARIES))
    if not offered:
        return None
    try:
        # The extension module has loaded it: this is a handle to the same one.
        ggml = ctypes.CDLL(str(folder / "libggml.so"))
        load_all, find_device = ggml.ggml_backend_load_all_from_path, ggml.ggml_backend_dev_by_type
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"{folder} has libraries for {', '.join(offered)}, and no libggml.so to load them "
            f"with ({error}): install the engine anew"
        ) from error
    load_all.argtypes, load_all.restype = [ctypes.c_char_p], None
    find_device.argtypes, find_device.restype = [ctypes.c_int], ctypes.c_void_p
    load_all(os.fsencode(folder))
    if find_device(_CPU) is None:
        raise EngineError(
            f"none of the engine's CPU libraries works on this {platform.machine()} processor: "
            f"looked for {_LIBRARIES} in {folder} and found {', '.join(offered)}; install an "
            "engine for this machine, or libgomp1 if it is missing"
        )
    return _mapped(folder)


def _mapped(folder: Path) -> str | None:
    """Which of them is in memory: ggml closes those it does not choose, and does not tell."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line[line.find("/") :])
        if path.parent == folder and path.match(_LIBRARIES):
            return _name(path)
    return None


def _name(path: Path) -> str:
    return path.stem.removeprefix("libggml-cpu-")
