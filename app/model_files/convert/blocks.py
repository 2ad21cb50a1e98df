"""Encode matrices in ggml's block formats.

gguf's numpy code does the rounding. It makes several copies, so a matrix is encoded a few thousand
rows at a time: large-v3's token embedding alone is 265 MB in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.model_files.convert.source import ConvertError
from app.model_files.ggml import TENSOR_TYPES

# Values quantized at once: 16 MB of float32.
VALUES_AT_ONCE = 4 << 20


@dataclass(frozen=True)
class Format:
    """`tensor` and `file`: ggml's numbers for it (ggml.h: enum ggml_type, enum ggml_ftype).
    `version`: the quantization version noted in the file's head."""

    name: str
    tensor: int
    file: int
    version: int


# Upstream published its q5_1 files while the version was 1. Version 2 changed the blocks of
# other formats only and the engine just logs it; with 1 our files equal the published ones.
FORMATS = {
    "f16": Format("f16", 1, 1, 0),
    "q8_0": Format("q8_0", 8, 7, 2),
    "q5_1": Format("q5_1", 7, 9, 1),
    "q5_0": Format("q5_0", 6, 8, 2),
}


def encode(matrix: np.ndarray, form: Format) -> Iterator[bytes]:
    """Yield the bytes of a float16 or float32 matrix [rows, columns] in `form`.
    Raises ConvertError if the columns do not fill whole blocks, or gguf is missing."""
    rows = max(1, VALUES_AT_ONCE // matrix.shape[1])
    for begin in range(0, matrix.shape[0], rows):
        piece = matrix[begin : begin + rows]
        if form.name == "f16":
            yield np.ascontiguousarray(piece, np.float16).tobytes()
        else:
            yield _quantize(np.ascontiguousarray(piece, np.float32), form.tensor).tobytes()


def decode(data: np.ndarray, kind: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values, float32 [rows, columns], of a matrix of ggml type `kind` (uint8 bytes)."""
    values, size = TENSOR_TYPES[kind]
    quants, types = _gguf()
    rows = data.reshape(shape[0], shape[1] // values * size)
    return np.asarray(quants.dequantize(rows, types(kind)), np.float32).reshape(shape)


def _quantize(piece: np.ndarray, kind: int) -> np.ndarray:
    if piece.shape[1] % TENSOR_TYPES[kind][0]:
        raise ConvertError(
            f"rows of {piece.shape[1]} values do not fill blocks of {TENSOR_TYPES[kind][0]}: "
            "convert with --quantize f16"
        )
    quants, types = _gguf()
    return np.asarray(quants.quantize(piece, types(kind)))


def _gguf() -> tuple[Any, Any]:
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as error:
        raise ConvertError(
            f"quantizing needs gguf ({error}): pip install -r requirements-convert.txt"
        ) from error
    return quants, GGMLQuantizationType
