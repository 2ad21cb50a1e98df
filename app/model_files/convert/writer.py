"""Write a Source as a ggml Whisper file. Source of the layout: `app.model_files.ggml`."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from app.model_files.convert import blocks
from app.model_files.convert.source import ConvertError, Source
from app.model_files.ggml import (
    MAGIC,
    TensorShape,
    expected_tensors,
    tensor_bytes,
)

FLOAT16_MAX = 65504.0


def write(
    source: Source,
    form: blocks.Format,
    file: BinaryIO,
    progress: Callable[[int, int | None], None],
) -> None:
    """Write `source` to `file` with its matrices in `form`. `progress` gets bytes.
    Raises ConvertError for values that the format cannot hold, OSError for the disk."""
    hp = dataclasses.replace(source.hyperparameters, ftype=1000 * form.version + form.file)
    file.write(struct.pack("<12i", MAGIC, *dataclasses.astuple(hp)))
    file.write(struct.pack("<2i", *source.filters.shape))
    file.write(np.ascontiguousarray(source.filters, "<f4").tobytes())
    file.write(struct.pack("<i", len(source.words)))
    for word in source.words:
        file.write(struct.pack("<i", len(word)) + word)
    shapes = {tensor.name: tensor for tensor in expected_tensors(hp)}
    total = file.tell() + sum(_bytes(tensor, form) for tensor in shapes.values())
    for name in source.order:
        _tensor(shapes[name], source.tensor(name), form, file)
        progress(min(file.tell(), total), total)


def _kind(tensor: TensorShape, form: blocks.Format) -> int:
    """Return the ggml type of a tensor: float16 for convolutions, float32 for small tensors."""
    return {"matrix": form.tensor, "convolution": 1, "float32": 0}[tensor.kind]


def _bytes(tensor: TensorShape, form: blocks.Format) -> int:
    size = tensor_bytes(tensor.shape, _kind(tensor, form))
    if size is None:
        raise ConvertError(
            f"rows of {tensor.shape[-1]} values ({tensor.name}) do not fill {form.name}'s "
            "blocks: convert with --quantize f16"
        )
    return size + 4 * (3 + len(tensor.shape)) + len(tensor.name)


def _tensor(
    tensor: TensorShape,
    data: np.ndarray,
    form: blocks.Format,
    file: BinaryIO,
) -> None:
    kind = _kind(tensor, form)
    name = tensor.name.encode()
    data = data.reshape(tensor.shape)
    file.write(struct.pack("<3i", len(tensor.shape), len(name), kind))
    file.write(struct.pack(f"<{len(tensor.shape)}i", *reversed(tensor.shape)) + name)
    if not np.all(np.isfinite(data)):
        raise ConvertError(f"tensor {tensor.name} holds values that are not finite")
    if tensor.kind == "float32":
        file.write(np.ascontiguousarray(data, "<f4").tobytes())
        return
    if data.dtype != np.float16:
        if np.abs(data).max(initial=0.0) > FLOAT16_MAX:
            raise ConvertError(f"tensor {tensor.name} holds values too large for float16")
        # Every format is made from float16, like upstream's two steps (convert, quantize): the
        # same weights give the same file, however they were stored.
        data = data.astype(np.float16)
    if tensor.kind == "convolution":
        file.write(np.ascontiguousarray(data, "<f2").tobytes())
        return
    for piece in blocks.encode(data, form):
        file.write(piece)
