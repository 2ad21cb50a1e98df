"""Read an existing ggml Whisper file, to write it again in another format.

The tensors keep their order, as upstream's own quantizer keeps it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.model_files.convert import blocks
from app.model_files.convert.source import ConvertError, Source
from app.model_files.entry import CatalogError
from app.model_files.ggml import TensorPlace, inspect

F32, F16 = 0, 1


def open_file(path: Path) -> Source:
    """Return the model in `path`, its structure checked. Raises ConvertError."""
    try:
        structure = inspect(path)
    except CatalogError as error:
        raise ConvertError(str(error)) from error
    hp = structure.hyperparameters
    places = {place.name: place for place in structure.tensors}
    filters = np.fromfile(path, "<f4", hp.n_mels * 201, offset=structure.filters_offset)

    def tensor(name: str) -> np.ndarray:
        return _load(path, places[name])

    lossy = " (already quantized: its lost precision does not return)" if hp.ftype > 1 else ""
    return Source(
        description=f"ggml file {path}{lossy}",
        hyperparameters=hp,
        filters=filters.reshape(hp.n_mels, 201),
        words=structure.vocabulary,
        order=tuple(places),
        tensor=tensor,
    )


def _load(path: Path, place: TensorPlace) -> np.ndarray:
    if place.type in (F32, F16):
        dtype = np.dtype("<f4" if place.type == F32 else "<f2")
        data = np.fromfile(path, dtype, place.size // dtype.itemsize, offset=place.offset)
        return data.reshape(place.shape)
    raw = np.fromfile(path, np.uint8, place.size, offset=place.offset)
    return blocks.decode(raw, place.type, place.shape)
