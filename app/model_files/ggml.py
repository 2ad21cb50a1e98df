"""The structure of a ggml Whisper file, which `inspect` checks without loading it.

A corrupt model makes whisper.cpp crash the process, and a truncated one loads as "empty" and
answers nothing. An official file is checked by its hash. A file without a published hash is checked
here: its numbers, its vocabulary, and every tensor's name, shape and byte count, up to the last
byte. `app/model_files/convert` writes files by the same tables. Standard library only; any thread.

Source of the layout: whisper.cpp v1.8.5, src/whisper.cpp, whisper_model_load, and
models/convert-pt-to-ggml.py. Little-endian throughout.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from app.model_files.entry import CatalogError

MAGIC = 0x67676D6C  # "ggml"
# 51,864 is English only; 51,865 the 99 languages; 51,866 (large-v3) has Cantonese as well.
# The engine derives the ids of its special tokens from these sizes and misreads any other.
VOCABULARIES = (51864, 51865, 51866)
N_FFT = 201  # 400-point FFT: 1 + 400 / 2 bins; the engine relies on it
# GGML_QNT_VERSION: a quantized file's type is written 1000 x version + type. Upstream's q5_1 files
# have 1, its q8_0 files 2. Version 2 changed the size of q4 and q8 blocks, so an older file of
# those formats fails at its first matrix.
QUANTIZATION_VERSIONS = (1, 2)

# ggml's tensor types: number -> (values in a block, bytes of a block).
# Source: ggml.h (enum ggml_type) and ggml-common.h (the block structs).
TENSOR_TYPES = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
}
# A file's type (enum ggml_ftype) -> the tensor type of its large matrices.
FILE_TYPES = {0: 0, 1: 1, 2: 2, 3: 3, 7: 8, 8: 6, 9: 7, 10: 10, 11: 11, 12: 12, 13: 13, 14: 14}


@dataclass(frozen=True)
class Hyperparameters:
    """The eleven numbers at the head of a file, in the file's order."""

    n_vocab: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    ftype: int

    @property
    def multilingual(self) -> bool:
        """The engine decides by the size of the vocabulary."""
        return self.n_vocab >= 51865


@dataclass(frozen=True)
class TensorShape:
    """The shape that a tensor must have, in numpy's order (slowest first); the file has it
    reversed. `kind`: `matrix` (may be quantized), `convolution` (float16, or float32 in a float32
    file) or `float32`."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in a file. `offset` and `size` of its data are in bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size: int


@dataclass(frozen=True)
class Structure:
    """The layout of a file. `filters_offset`: the first byte of the mel filters, n_mels x 201
    float32. `vocabulary`: the bytes of the tokens, in id order. `tensors` are in file order."""

    hyperparameters: Hyperparameters
    filters_offset: int
    vocabulary: tuple[bytes, ...]
    tensors: tuple[TensorPlace, ...]


def unsound(hp: Hyperparameters) -> str | None:
    """Return the reason why the engine cannot use these numbers, or None if it can."""
    if hp.n_vocab not in VOCABULARIES:
        return f"its vocabulary has {hp.n_vocab} entries; Whisper's have {VOCABULARIES}"
    # Bounds: twice the largest official model (large: 1280 wide, 20 heads, 32 layers), and
    # the contexts every official model has (1500 and 448), which the engine's own 30 s
    # window and 224-token prompt come from.
    for name, most in (
        ("n_audio_ctx", 1500),
        ("n_audio_state", 2560),
        ("n_audio_head", 40),
        ("n_audio_layer", 64),
        ("n_text_ctx", 448),
        ("n_text_state", 2560),
        ("n_text_head", 40),
        ("n_text_layer", 64),
    ):
        if not 1 <= getattr(hp, name) <= most:
            return f"{name} is {getattr(hp, name)}, outside 1 to {most}"
    if hp.n_text_state != hp.n_audio_state:
        return f"encoder and decoder differ in width ({hp.n_audio_state}, {hp.n_text_state})"
    if hp.n_audio_state % hp.n_audio_head or hp.n_text_state % hp.n_text_head:
        return "its width is not a multiple of its number of heads"
    if hp.n_mels not in (80, 128):
        return f"it has {hp.n_mels} mel bands; Whisper has 80 or 128"
    version, ftype = divmod(hp.ftype, 1000)
    versions = QUANTIZATION_VERSIONS if ftype > 1 else (0,)
    if ftype not in FILE_TYPES or version not in versions:
        return f"its file type {hp.ftype} is unknown to the engine"
    return None


def expected_tensors(hp: Hyperparameters) -> tuple[TensorShape, ...]:
    """Return every tensor of a model with these numbers, in upstream's order (that of OpenAI's
    checkpoints). By that order a conversion equals upstream's file byte for byte."""
    found = [
        TensorShape("decoder.positional_embedding", (hp.n_text_ctx, hp.n_text_state), "float32"),
        TensorShape("encoder.positional_embedding", (hp.n_audio_ctx, hp.n_audio_state), "float32"),
        TensorShape("decoder.token_embedding.weight", (hp.n_vocab, hp.n_text_state), "matrix"),
    ]
    for layer in range(hp.n_text_layer):
        found += _block(f"decoder.blocks.{layer}", hp.n_text_state, cross=True)
    found += _pair("decoder.ln", (hp.n_text_state,), "float32")
    for name, channels in (("conv1", hp.n_mels), ("conv2", hp.n_audio_state)):
        found += [
            TensorShape(f"encoder.{name}.weight", (hp.n_audio_state, channels, 3), "convolution"),
            TensorShape(f"encoder.{name}.bias", (hp.n_audio_state, 1), "float32"),
        ]
    for layer in range(hp.n_audio_layer):
        found += _block(f"encoder.blocks.{layer}", hp.n_audio_state, cross=False)
    found += _pair("encoder.ln_post", (hp.n_audio_state,), "float32")
    return tuple(found)


def _pair(name: str, shape: tuple[int, ...], kind: str) -> list[TensorShape]:
    return [
        TensorShape(f"{name}.weight", shape, kind),
        TensorShape(f"{name}.bias", shape[:1], "float32"),
    ]


def _block(name: str, n: int, *, cross: bool) -> list[TensorShape]:
    found = _pair(f"{name}.mlp_ln", (n,), "float32")
    found += _pair(f"{name}.mlp.0", (4 * n, n), "matrix")
    found += _pair(f"{name}.mlp.2", (n, 4 * n), "matrix")
    for attention in ("attn", "cross_attn") if cross else ("attn",):
        found += _pair(f"{name}.{attention}_ln", (n,), "float32")
        for part in ("query", "key", "value", "out"):
            pair = _pair(f"{name}.{attention}.{part}", (n, n), "matrix")
            found += pair[:1] if part == "key" else pair  # Whisper's key has no bias
    return found


def tensor_bytes(shape: Sequence[int], kind: int) -> int | None:
    """Return the bytes of a tensor of ggml type `kind`; None if its rows do not fill blocks."""
    values, size = TENSOR_TYPES[kind]
    if shape[-1] % values:
        return None
    total = 1
    for extent in shape:
        total *= extent
    return total // values * size


def inspect(path: Path) -> Structure:
    """Check a ggml Whisper file's structure without loading it.

    Raises CatalogError with the fault: not a ggml file, numbers that the engine cannot use, a
    tensor that is missing, unknown or of the wrong shape, a truncated file, or bytes left over.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).structure()
    except OSError as error:
        raise CatalogError(
            f"cannot read the model {path} ({error.strerror}): check the path and its permissions"
        ) from error


class _Reader:
    """Reads a file from head to end. Every number is bounded before it is used."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def structure(self) -> Structure:
        hp = self.hyperparameters()
        n_mel, n_fft = self._integers(2)
        if (n_mel, n_fft) != (hp.n_mels, N_FFT):
            self._bad(f"its mel filters are {n_mel} x {n_fft}, not {hp.n_mels} x {N_FFT}")
        filters = self._file.tell()
        self._skip(n_mel * n_fft * 4, "mel filters")
        vocabulary = self._vocabulary(hp)
        return Structure(hp, filters, vocabulary, tuple(self._tensors(hp)))

    def hyperparameters(self) -> Hyperparameters:
        if self._size < 4 or self._integers(1)[0] != MAGIC:
            self._bad("it does not begin like a ggml Whisper file")
        hp = Hyperparameters(*self._integers(11))
        if problem := unsound(hp):
            self._bad(problem)
        return hp

    def _vocabulary(self, hp: Hyperparameters) -> tuple[bytes, ...]:
        count = self._integers(1)[0]
        # At least the 50,256 words of text; the special tokens above them may be left out.
        if not 50256 <= count <= hp.n_vocab:
            self._bad(f"its vocabulary lists {count} words, for {hp.n_vocab} entries")
        words = []
        for _ in range(count):
            length = self._integers(1)[0]
            if not 0 <= length <= 1024:  # the longest official one has 128 bytes
                self._bad(f"a word of its vocabulary has a stated length of {length} bytes")
            words.append(self._read(length, "vocabulary"))
        return tuple(words)

    def _tensors(self, hp: Hyperparameters) -> Iterator[TensorPlace]:
        expected = {tensor.name: tensor for tensor in expected_tensors(hp)}
        matrix = FILE_TYPES[hp.ftype % 1000]
        types = {"matrix": matrix, "convolution": 0 if matrix == 0 else 1, "float32": 0}
        while self._file.tell() < self._size:
            dims, length, kind = self._integers(3)
            if not 1 <= dims <= 3 or not 1 <= length <= 128:
                self._bad("a tensor's header is damaged, or there are bytes after the last one")
            shape = tuple(reversed(self._integers(dims)))
            name = self._read(length, "a tensor's name").decode("utf-8", "replace")
            tensor = expected.pop(name, None)
            if tensor is None:
                self._bad(f"the tensor {name!r} occurs twice or is not one of Whisper's")
            if shape != tensor.shape:
                self._bad(f"tensor {name} has the shape {shape}, not {tensor.shape}")
            if kind != types[tensor.kind]:
                self._bad(f"tensor {name} is of type {kind}, not {types[tensor.kind]}")
            size = tensor_bytes(shape, kind)
            if size is None:
                self._bad(f"tensor {name} does not divide into blocks of its type")
            offset = self._file.tell()
            self._skip(size, f"tensor {name}")
            yield TensorPlace(name, shape, kind, offset, size)
        if expected:
            self._bad(f"{len(expected)} of its tensors are missing (the first: {min(expected)})")

    def _integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self._read(4 * count, "header"))

    def _read(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            self._truncated(what)
        return data

    def _skip(self, count: int, what: str) -> None:
        if self._file.tell() + count > self._size:
            self._truncated(what)
        self._file.seek(count, os.SEEK_CUR)

    def _truncated(self, what: str) -> NoReturn:
        self._bad(f"it ends at byte {self._size}, within its {what}")

    def _bad(self, reason: str) -> NoReturn:
        raise CatalogError(
            f"{self._path} is not a model that the engine can load: {reason}. "
            "Fetch or convert it again (docs/models.md)"
        )
