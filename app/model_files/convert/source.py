"""What a model to convert looks like to the writer, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.model_files.ggml import Hyperparameters, expected_tensors, unsound

# Of a tensor. Whisper's have 3 at the most; numpy bears 32.
MOST_DIMENSIONS = 8


class ConvertError(Exception):
    """The source cannot be converted. `str()` is one line: what was found, what to do."""


@dataclass(frozen=True)
class Source:
    """A model that can be written.

    `hyperparameters`: as the file's head will have them; `ftype` is what the source has and
    is replaced by what is asked for. `filters`: float32 [n_mels, 201]. `words`: the bytes
    of each token, in id order. `order`: the tensors' names in the order to write them.
    `tensor(name)`: that tensor in its final shape (`app.model_files.ggml.expected_tensors`),
    float16 or float32, C-contiguous; read from the disk at each call. `description`: for a person.
    """

    description: str
    hyperparameters: Hyperparameters
    filters: np.ndarray
    words: tuple[bytes, ...]
    order: tuple[str, ...]
    tensor: Callable[[str], np.ndarray]


def check_names(
    hp: Hyperparameters, shapes: dict[str, tuple[int, ...]], what: str
) -> tuple[str, ...]:
    """Compare the tensors a source has with those a Whisper model of its shape has.

    `shapes`: by ggml name; dimensions of size 1 do not count (sources differ in them).
    Returns the names in upstream's order. Raises ConvertError.
    """
    if problem := unsound(hp):
        raise ConvertError(f"{what} is no model the engine can work with: {problem}")
    expected = {tensor.name: tensor.shape for tensor in expected_tensors(hp)}
    if missing := sorted(expected.keys() - shapes.keys()):
        raise ConvertError(
            f"{what} is not a complete Whisper model: {len(missing)} tensors are missing, "
            f"the first is {missing[0]}"
        )
    if extra := sorted(shapes.keys() - expected.keys()):
        raise ConvertError(
            f"{what} is not a plain Whisper model: it has {len(extra)} tensors Whisper does "
            f"not have, the first is {extra[0]}"
        )
    for name, shape in expected.items():
        if _squeezed(shapes[name]) != _squeezed(shape):
            raise ConvertError(f"{what}: tensor {name} has shape {shapes[name]}, not {shape}")
    return tuple(expected)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)
