"""Reads a CTranslate2 Whisper folder (what faster-whisper uses): model.bin, config.json,
vocabulary.txt or .json.

model.bin is little-endian: version u32, spec name, revision u32, number of variables u32;
for each its name, rank u8, dimensions u32 each, type u8, bytes u32, data; then aliases. A
string is its length u16, with a final NUL. Source: CTranslate2's documentation of its model
format (python/ctranslate2/specs/model_spec.py); numbers of types: its enum DataType.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.catalog import VOCABULARIES, Hyperparameters

from . import mel, words
from .source import ConvertError, Source, check_names

VERSIONS = (4, 5, 6)  # 4 brought the type byte; 6 is current
FLOAT32, INT8, INT16, INT32, FLOAT16, BFLOAT16 = range(6)
ITEM_BYTES = {FLOAT32: 4, INT8: 1, INT16: 2, INT32: 4, FLOAT16: 2, BFLOAT16: 2}
SPEC = "WhisperSpec"

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
# Switches of the decoder's and encoder's make, no weights; none changes what we write.
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


def _check_types(path: Path, variables: dict[str, Variable]) -> None:
    whole = any(name.endswith("/weight_scale") for name in variables) or any(
        name.endswith("/weight") and variable.type in (INT8, INT16)
        for name, variable in variables.items()
    )
    if whole:
        raise ConvertError(
            f"{path} was quantized to whole numbers, and what that rounded away is lost for "
            "the formats here: convert the original again with '--quantization float16'"
        )


def _check_projection(
    path: Path,
    variables: dict[str, Variable],
    aliases: dict[str, str],
    pieces: dict[str, Piece],
) -> None:
    """whisper.cpp always uses the token embedding as output projection."""
    name, embedding = "decoder/projection/weight", "decoder/embeddings/weight"
    if "decoder/projection/bias" in pieces:
        if np.any(_load(path, variables, pieces["decoder/projection/bias"])):
            raise ConvertError(f"{path} has an output bias, which the engine cannot apply")
        del pieces["decoder/projection/bias"]
    if aliases.get(name) == embedding:
        return
    if name not in variables:
        raise ConvertError(f"{path} has no output projection ({name}): it is not a whole model")
    if not np.array_equal(
        _load(path, variables, Piece(name, 0, 1)), _load(path, variables, Piece(embedding, 0, 1))
    ):
        raise ConvertError(untied(str(path)))


def untied(what: str) -> str:
    """Why a model with an output projection of its own is refused."""
    return (
        f"{what} has an output projection that differs from its token embedding. whisper.cpp "
        "always uses the embedding for both, so the result would answer nonsense: fine-tune "
        "with tie_word_embeddings on"
    )


def _load(path: Path, variables: dict[str, Variable], piece: Piece) -> np.ndarray:
    variable = variables[piece.variable]
    raw = np.dtype({2: "<u2", 4: "<u4", 1: "u1"}[ITEM_BYTES[variable.type]])
    rows = variable.shape[0] // piece.parts if variable.shape else 1
    count = variable.size // raw.itemsize // piece.parts
    data = np.fromfile(
        path, raw, count, offset=variable.offset + piece.index * count * raw.itemsize
    )
    if data.size != count:
        raise ConvertError(f"{path} is truncated in {piece.variable}")
    return as_numbers(data, variable.type).reshape(
        (rows, *variable.shape[1:]) if variable.shape else ()
    )


def as_numbers(raw: np.ndarray, kind: int) -> np.ndarray:
    """Unsigned words as the numbers of a CTranslate2 type; bfloat16 becomes float32."""
    if kind == BFLOAT16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.view({FLOAT32: "<f4", INT8: "i1", INT16: "<i2", INT32: "<i4", FLOAT16: "<f2"}[kind])
