"""Read a CTranslate2 Whisper folder (the format of faster-whisper): model.bin, config.json,
vocabulary.txt or .json.

`app/model_files/convert/ctranslate2_file.py` reads model.bin; here its variables become ggml's
tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.model_files.convert import mel, words
from app.model_files.convert.ctranslate2_file import (
    INT8,
    INT16,
    INT32,
    Variable,
    load,
    read_index,
)
from app.model_files.convert.source import ConvertError, Source, check_names, untied
from app.model_files.ggml import VOCABULARIES, Hyperparameters

# CTranslate2's name inside a layer -> ggml's names; several where it fuses them by rows.
PAIRS = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
ENDINGS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
# Settings of encoder and decoder, which are no weights; none changes the ggml file.
SETTINGS = frozenset(
    {
        "activation",
        "alibi",
        "alignment_heads",
        "alignment_layer",
        "multi_query_attention",
        "num_heads",
        "pre_norm",
        "quantization_type",
        "rotary_base",
        "rotary_interleave",
        "scale_embeddings",
        "sliding_window",
        "start_from_zero_embedding",
    }
)


@dataclass(frozen=True)
class Piece:
    """A ggml tensor as rows of a variable: the `index`-th of `parts` equal pieces."""

    variable: str
    index: int
    parts: int


def open_folder(folder: Path) -> Source:
    """Return the model in `folder`. Reads only the headers. Raises ConvertError."""
    path = folder / "model.bin"
    variables, aliases = read_index(path)
    pieces = {target: piece for name in variables for target, piece in _targets(name)}
    hp = _hyperparameters(path, variables)
    _check_types(path, variables)
    _check_projection(path, variables, aliases, pieces)
    shapes = {}
    for name, piece in list(pieces.items()):
        shape = variables[piece.variable].shape
        if not shape or shape[0] % piece.parts:
            raise ConvertError(f"{path}: variable {piece.variable} has a wrong shape, {shape}")
        if name.endswith(".key.bias"):
            # Whisper's key has no bias; CTranslate2 fills its place with zeros.
            if np.any(_load(path, variables, piece)):
                raise ConvertError(f"{path}: {name} is not zero, and Whisper has no such bias")
            del pieces[name]
            continue
        shapes[name] = (shape[0] // piece.parts, *shape[1:])
    order = check_names(hp, shapes, str(path))

    def tensor(name: str) -> np.ndarray:
        return _load(path, variables, pieces[name])

    return Source(
        description=f"CTranslate2 folder {folder}",
        hyperparameters=hp,
        filters=mel.filters(hp.n_mels),
        words=words.read(folder, hp.n_vocab),
        order=order,
        tensor=tensor,
    )


def _targets(name: str) -> list[tuple[str, Piece]]:
    """Return the ggml tensors in a variable; none for a setting. An unknown name is kept, so that
    the check against Whisper's tensors reports it."""
    side, _, rest = name.partition("/")
    stem, _, ending = rest.rpartition("/")
    if not stem and rest in SETTINGS:
        return []
    final = "ln" if side == "decoder" else "ln_post"
    singles = {
        "embeddings/weight": "token_embedding.weight",
        "position_encodings/encodings": "positional_embedding",
        "layer_norm/gamma": f"{final}.weight",
        "layer_norm/beta": f"{final}.bias",
        "conv1/weight": "conv1.weight",
        "conv1/bias": "conv1.bias",
        "conv2/weight": "conv2.weight",
        "conv2/bias": "conv2.bias",
    }
    if rest in singles:
        return [(f"{side}.{singles[rest]}", Piece(name, 0, 1))]
    layer, _, inside = stem.partition("/")
    if layer.startswith("layer_") and inside in PAIRS and ending in ENDINGS:
        parts = PAIRS[inside]
        block = f"{side}.blocks.{layer.removeprefix('layer_')}"
        return [
            (f"{block}.{part}.{ENDINGS[ending]}", Piece(name, index, len(parts)))
            for index, part in enumerate(parts)
        ]
    if name == "decoder/projection/weight":
        return []  # see _check_projection
    return [(name, Piece(name, 0, 1))]


def _hyperparameters(path: Path, variables: dict[str, Variable]) -> Hyperparameters:
    embedding = _shape(path, variables, "decoder/embeddings/weight", 2)
    audio = _shape(path, variables, "encoder/position_encodings/encodings", 2)
    text = _shape(path, variables, "decoder/position_encodings/encodings", 2)
    n_mels = _shape(path, variables, "encoder/conv1/weight", 3)[1]
    heads = [_whole_number(path, variables, f"{side}/num_heads") for side in ("encoder", "decoder")]
    layers = {
        side: len({n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_")})
        - (f"{side}/layer_norm/gamma" in variables)
        for side in ("encoder", "decoder")
    }
    if embedding[0] not in VOCABULARIES:
        raise ConvertError(
            f"{path} has a vocabulary of {embedding[0]} entries; the engine knows {VOCABULARIES}"
        )
    return Hyperparameters(
        n_vocab=embedding[0],
        n_audio_ctx=audio[0],
        n_audio_state=audio[1],
        n_audio_head=heads[0],
        n_audio_layer=layers["encoder"],
        n_text_ctx=text[0],
        n_text_state=embedding[1],
        n_text_head=heads[1],
        n_text_layer=layers["decoder"],
        n_mels=n_mels,
        ftype=1,
    )


def _shape(
    path: Path, variables: dict[str, Variable], name: str, dimensions: int
) -> tuple[int, ...]:
    """Return the shape of a variable that every model has."""
    shape = _variable(path, variables, name).shape
    if len(shape) != dimensions:
        raise ConvertError(f"{path}: variable {name} has a wrong shape, {shape}")
    return shape


def _whole_number(path: Path, variables: dict[str, Variable], name: str) -> int:
    variable = _variable(path, variables, name)
    if math.prod(variable.shape) != 1 or variable.type not in (INT8, INT16, INT32):
        raise ConvertError(f"{path}: variable {name} is not a whole number")
    return int(_load(path, variables, Piece(name, 0, 1)).item())


def _variable(path: Path, variables: dict[str, Variable], name: str) -> Variable:
    if name not in variables:
        raise ConvertError(f"{path} is not a complete Whisper model: {name} is missing")
    return variables[name]


def _check_types(path: Path, variables: dict[str, Variable]) -> None:
    whole = any(name.endswith("/weight_scale") for name in variables) or any(
        name.endswith("/weight") and variable.type in (INT8, INT16)
        for name, variable in variables.items()
    )
    if whole:
        raise ConvertError(
            f"{path} is quantized to whole numbers, which has lost the precision that these "
            "formats need: convert the original again with '--quantization float16'"
        )


def _check_projection(
    path: Path,
    variables: dict[str, Variable],
    aliases: dict[str, str],
    pieces: dict[str, Piece],
) -> None:
    """Reject a projection of its own: whisper.cpp always uses the token embedding."""
    name, embedding = "decoder/projection/weight", "decoder/embeddings/weight"
    if "decoder/projection/bias" in pieces:
        if np.any(_load(path, variables, pieces["decoder/projection/bias"])):
            raise ConvertError(f"{path} has an output bias, which the engine cannot apply")
        del pieces["decoder/projection/bias"]
    if aliases.get(name) == embedding:
        return
    if name not in variables:
        raise ConvertError(f"{path} has no output projection ({name}): it is not a complete model")
    if not np.array_equal(
        _load(path, variables, Piece(name, 0, 1)), _load(path, variables, Piece(embedding, 0, 1))
    ):
        raise ConvertError(untied(str(path)))


def _load(path: Path, variables: dict[str, Variable], piece: Piece) -> np.ndarray:
    return load(path, piece.variable, variables[piece.variable], piece.index, piece.parts)
