"""whisper.cpp's binding `_pywhispercpp`: the only module that imports it.

The binding gives `whisper_full`'s return code, which pywhispercpp's `Model` discards, so that a
failure cannot be mistaken for silence. It also does not import requests, tqdm and platformdirs.
"""

from __future__ import annotations

import os

# libgomp reads its environment when it is loaded, so this stands before the import. The default, to
# spin for a long time at every barrier, makes a short command several times slower beside one busy
# neighbour. Figures in docs/lab-book.md, "Threads".
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import _pywhispercpp as pw

__all__ = ["pw"]
