"""Read a Hugging Face Whisper folder: config.json, model.safetensors (or its sharded
index), and the tokenizer's vocabulary.

safetensors by numpy over its documented layout: the length of a JSON header as u64, the
header (for each tensor its type, shape and byte range), the data. That reads bfloat16,
which numpy has no type for, and one tensor at a time.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.model_files.convert import documents, mel, words
from app.model_files.convert.source import (
    MOST_DIMENSIONS,
    ConvertError,
    Source,
    check_names,
    untied,
)
from app.model_files.ggml import VOCABULARIES, Hyperparameters

# transformers' name inside a layer -> ggml's. k_proj and the like become attn.key in both
# halves; in the decoder, encoder_attn is what attends to the audio.
PARTS = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
WHOLE = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")
ARCHITECTURES = ("WhisperForConditionalGeneration", "WhisperModel")
TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
HEADER_LIMIT = 100 << 20  # bytes; the limit the safetensors library has, too


@dataclass(frozen=True)
class Stored:
    """A tensor. `offset` and `size` of its data in `file` are in bytes."""

    file: Path
    type: str
    shape: tuple[int, ...]
    offset: int
    size: int


def open_folder(folder: Path) -> Source:
    """Return the model in `folder`. Reads only the headers. Raises ConvertError."""
    config = documents.read_object(folder / "config.json")
    hp = _hyperparameters(folder, config)
    stored = _index(folder)
    names = {_ggml_name(name): tensor for name, tensor in stored.items()}
    if len(names) < len(stored):
        raise ConvertError(f"{folder} has a tensor twice, with and without 'model.'")
    projection = names.pop("proj_out.weight", None)
    tied = config.get("tie_word_embeddings", True)
    shapes = {name: tensor.shape for name, tensor in names.items()}
    order = check_names(hp, shapes, str(folder))
    if not tied:
        embedding = names["decoder.token_embedding.weight"]
        if projection is None:
            raise ConvertError(
                f"{folder / 'config.json'} unties the output projection, but the weights "
                "have no proj_out.weight: save the model again with all its tensors"
            )
        if projection.shape != embedding.shape or not np.array_equal(
            _load(projection), _load(embedding)
        ):
            raise ConvertError(untied(str(folder)))

    def tensor(name: str) -> np.ndarray:
        return _load(names[name])

    return Source(
        description=f"Hugging Face folder {folder}",
        hyperparameters=hp,
        filters=mel.filters(hp.n_mels),
        words=words.read(folder, hp.n_vocab),
        order=order,
        tensor=tensor,
    )


def _hyperparameters(folder: Path, config: dict[str, Any]) -> Hyperparameters:
    kind, architectures = config.get("model_type"), config.get("architectures") or []
    if not documents.is_strings(architectures):
        raise ConvertError(
            f"{folder / 'config.json'}: architectures is {architectures!r}, not a list of names"
        )
    if kind != "whisper" or not all(name in ARCHITECTURES for name in architectures):
        raise ConvertError(
            f"{folder} is a {'/'.join(architectures) or 'model'} of type {kind!r}, "
            f"not Whisper ({ARCHITECTURES[0]})"
        )
    # Variations that transformers supports and whisper.cpp does not.
    for key, only in (("activation_function", "gelu"), ("scale_embedding", False)):
        if config.get(key, only) != only:
            raise ConvertError(f"{folder} has {key} {config[key]!r}; the engine knows {only!r}")
    d = _number(folder, config, "d_model")
    for key in ("encoder_ffn_dim", "decoder_ffn_dim"):
        if config.get(key, 4 * d) != 4 * d:
            raise ConvertError(f"{folder} has {key} {config[key]}; the engine knows {4 * d}")
    n_vocab = _number(folder, config, "vocab_size")
    if n_vocab not in VOCABULARIES:
        raise ConvertError(
            f"{folder} has a vocabulary of {n_vocab} entries; the engine knows {VOCABULARIES}"
        )
    return Hyperparameters(
        n_vocab=n_vocab,
        n_audio_ctx=_number(folder, config, "max_source_positions"),
        n_audio_state=d,
        n_audio_head=_number(folder, config, "encoder_attention_heads"),
        n_audio_layer=_number(folder, config, "encoder_layers"),
        n_text_ctx=_number(folder, config, "max_target_positions"),
        n_text_state=d,
        n_text_head=_number(folder, config, "decoder_attention_heads"),
        n_text_layer=_number(folder, config, "decoder_layers"),
        n_mels=_number(folder, config, "num_mel_bins"),
        ftype=1,
    )


def _number(folder: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= 1 << 20:
        raise ConvertError(f"{folder / 'config.json'}: {key} is {value!r}, not a valid number")
    return value


def _index(folder: Path) -> dict[str, Stored]:
    single, sharded = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return _header(single)
    if sharded.is_file():
        where = documents.read_object(sharded).get("weight_map")
        if (
            not isinstance(where, dict)
            or not where
            or not documents.is_strings(list(where.values()))
        ):
            raise ConvertError(f"{sharded} has no weight_map that names each tensor's file")
        headers = {name: _shard(folder, name) for name in sorted(set(where.values()))}
        for tensor, file in where.items():
            if tensor not in headers[file]:
                raise ConvertError(f"{sharded} names {tensor}, which its shard {file} lacks")
        return {tensor: headers[file][tensor] for tensor, file in where.items()}
    if (folder / "adapter_config.json").is_file():
        raise ConvertError(
            f"{folder} holds only an adapter (LoRA): merge it into its base model first "
            "(merge_and_unload) and save that"
        )
    raise ConvertError(
        f"{folder} has no model.safetensors: save the model with safe_serialization=True"
    )


def _shard(folder: Path, name: str) -> dict[str, Stored]:
    path = folder / Path(name).name
    if not path.is_file():
        raise ConvertError(f"{folder} has no file {name!r}, which its index names")
    return _header(path)


def _header(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_LIMIT, size - 8):
                raise ConvertError(f"{path} is not a safetensors file, or is truncated")
            header = documents.parse(file.read(length), path)
    except (OSError, struct.error) as error:
        raise ConvertError(f"{path} cannot be read as safetensors ({error})") from error
    if not isinstance(header, dict):
        raise ConvertError(f"{path} is not a safetensors file: its header is no JSON object")
    start = 8 + length
    found = {
        name: _stored(path, name, entry, start, size)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    reached = start
    for name, tensor in sorted(found.items(), key=lambda pair: pair[1].offset):
        if tensor.size and tensor.offset < reached:
            raise ConvertError(f"{path}: tensor {name} lies within another one")
        reached = max(reached, tensor.offset + tensor.size)
    return found


def _stored(path: Path, name: str, entry: Any, start: int, size: int) -> Stored:
    """Check an entry of a header; the data begin at `start` of a file of `size` bytes."""
    damaged = ConvertError(f"{path}: the header is damaged at tensor {name}")
    if not isinstance(entry, dict):
        raise damaged
    kind, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or not documents.is_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise damaged
    if kind not in TYPES:
        raise ConvertError(
            f"{path}: tensor {name} is of type {kind}; known are {', '.join(TYPES)}. "
            "A model quantized for loading must be saved unquantized"
        )
    if not documents.is_sizes(offsets) or len(offsets) != 2:
        raise damaged
    begin, end = offsets
    if end - begin != np.dtype(TYPES[kind]).itemsize * math.prod(shape):
        raise damaged
    if start + end > size:
        raise ConvertError(f"{path} is truncated: tensor {name} lies beyond its end")
    return Stored(path, kind, tuple(shape), start + begin, end - begin)


def _ggml_name(name: str) -> str:
    """Return ggml's name for a tensor; an unknown one is kept, and check_names reports it."""
    short = name.removeprefix("model.")
    if short in WHOLE:
        return WHOLE[short]
    match = LAYER.fullmatch(short)
    if match and match[3] in PARTS:
        return f"{match[1]}.blocks.{match[2]}.{PARTS[match[3]]}.{match[4]}"
    return short


def _load(tensor: Stored) -> np.ndarray:
    dtype = np.dtype(TYPES[tensor.type])
    count = tensor.size // dtype.itemsize
    data = np.fromfile(tensor.file, dtype, count, offset=tensor.offset)
    if tensor.type == "BF16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    elif tensor.type == "F64":
        with np.errstate(over="ignore"):  # the writer rejects infinite values
            data = data.astype(np.float32)
    return data.reshape(tensor.shape)
