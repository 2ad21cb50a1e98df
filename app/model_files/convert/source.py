"""A model to convert, as the readers hand it to the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.model_files.ggml import Hyperparameters, expected_tensors, unsound

# Dimensions of a tensor. Whisper's tensors have at most 3; numpy accepts 32.
MOST_DIMENSIONS = 8


class ConvertError(Exception):
    """The source cannot be converted. `str()` is one line with the reason and a remedy."""


@dataclass(frozen=True)
class Source:
    """A model that can be written.

    `hyperparameters`: as in the file's head; `ftype` is that of the source, and the writer
    replaces it. `filters`: float32 [n_mels, 201]. `words`: the bytes
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
    """Compare the tensors of a source with those of a Whisper model of its shape.

    `shapes`: by ggml name; dimensions of size 1 do not count (sources differ in them).
    Returns the names in upstream's order. Raises ConvertError.
    """
    if problem := unsound(hp):
        raise ConvertError(f"{what} is not a model that the engine can load: {problem}")
    expected = {tensor.name: tensor.shape for tensor in expected_tensors(hp)}
    if missing := sorted(expected.keys() - shapes.keys()):
        raise ConvertError(
            f"{what} is not a complete Whisper model: {len(missing)} tensors are missing, "
            f"the first is {missing[0]}"
        )
    if extra := sorted(shapes.keys() - expected.keys()):
        raise ConvertError(
            f"{what} is not a plain Whisper model: it has {len(extra)} tensors that Whisper "
            f"does not have, the first is {extra[0]}"
        )
    for name, shape in expected.items():
        if _squeezed(shapes[name]) != _squeezed(shape):
            raise ConvertError(f"{what}: tensor {name} has shape {shapes[name]}, not {shape}")
    return tuple(expected)


def untied(what: str) -> str:
    """Return the reason why a model with an output projection of its own is rejected."""
    return (
        f"{what} has an output projection that differs from its token embedding. whisper.cpp "
        "always uses the embedding for both, so the result would answer nonsense: fine-tune "
        "with tie_word_embeddings on"
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)
