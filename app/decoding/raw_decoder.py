"""whisper.cpp's decoder one step at a time: token numbers in, the next token's logits out.

After `whisper_full` the encoded audio stays in the context, and `whisper_decode` reads it together
with any text. The binding exports both functions but cannot pass an array of tokens or return the
logits, so this module calls the library itself, by ctypes, which releases the GIL. The context's
address is taken from the binding's wrapper object. Before it is used, the memory there is compared
with the model's sizes as the binding reports them. `app/decoding/timestamps.py` and
`app/decoding/language_probe.py` use this decoder. Worker thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.decoding.stop_flag import StopFlag

Logits = npt.NDArray[np.float32]

_VALUE_OFFSET = 16
"""Offset of the C++ object's address in a pybind11 object, in bytes: after the reference count and
the type, on 64-bit CPython."""

_CONTEXT_BYTES = 256
"""Bytes read from the start of whisper.cpp's context: load times, types, parameters, the model's
sizes."""


STEP_TOKENS = 24
"""Most tokens in one call. whisper.cpp computes the logits of the whole vocabulary for each and
keeps them twice: 0.4 MiB a token."""


class RawDecoderError(Exception):
    """The decoder cannot be reached, or whisper.cpp rejected a step; the message says why."""


class RawDecoder:
    """The decoder of one loaded model, on the audio that was encoded last.

    `vocabulary` is the number of tokens, `most` the number of positions of the text context.
    """

    def __init__(
        self, library: ctypes.CDLL, context: int, vocabulary: int, most: int, threads: int
    ) -> None:
        self._library = library
        self._context = context
        self._vocabulary = vocabulary
        self._most = most
        self.threads = threads
        """Threads of a step."""
        self._past = 0
        self.steps = 0
        """Number of decoder calls so far."""

    @property
    def past(self) -> int:
        """Number of tokens fed since the last rewind to 0."""
        return self._past

    def read_flag(self, flag: StopFlag) -> None:
        """Let whisper.cpp read `flag` during its passes, if it can."""
        flag.connect(self._library, self._context)

    def rewind(self, past: int) -> None:
        """Forget all tokens except the first `past` ones."""
        self._past = past

    def feed(self, tokens: Sequence[int]) -> Logits:
        """Append `tokens`, at least one; return the logits of the token after them.

        The result is as in `logits`. Raises `RawDecoderError` if whisper.cpp fails or the text
        context is full. Overwrites the decoder's memory, so a decode of whisper.cpp that has begun
        its text cannot continue afterwards.
        """
        if self._past + len(tokens) > self._most:
            raise RawDecoderError("the text context is full")
        for at in range(0, len(tokens), STEP_TOKENS):
            part = tokens[at : at + STEP_TOKENS]
            array = (ctypes.c_int * len(part))(*part)
            code = self._library.whisper_decode(
                self._context, array, len(part), self._past, self.threads
            )
            if code != 0:
                raise RawDecoderError(f"whisper_decode failed with code {code}")
            self._past += len(part)
            self.steps += 1
        return self.logits(len(part))

    def logits(self, tokens: int = 1) -> Logits:
        """The logits after the last of the `tokens` of the last decoder pass, which may be a pass
        of whisper.cpp itself: [vocabulary].

        The array is whisper.cpp's own memory, valid until the next call.
        """
        # An engine with our patch computes fewer rows and says where the last one is.
        with contextlib.suppress(AttributeError):
            last = self._library.node_whisper_last_logits(self._context)
            return np.ctypeslib.as_array(last, shape=(self._vocabulary,))
        # Otherwise there is one row per token, and whisper.cpp fills in the last.
        rows = self._library.whisper_get_logits(self._context)
        size = self._vocabulary * tokens
        logits: Logits = np.ctypeslib.as_array(rows, shape=(size,))[-self._vocabulary :]
        return logits


def attach(pw: Any, handle: Any, threads: int) -> RawDecoder:
    """Return the decoder of the binding's context `handle`.

    `pw` is the binding's module, already imported. Raises `RawDecoderError` if the library lacks a
    function or the memory layout is unexpected.
    """
    vocabulary, most = pw.whisper_model_n_vocab(handle), pw.whisper_model_n_text_ctx(handle)
    try:
        library = _library(Path(pw.__file__))
        context = _address(
            handle, struct.pack("=ii", vocabulary, pw.whisper_model_n_audio_ctx(handle))
        )
    except (OSError, AttributeError) as error:
        raise RawDecoderError(str(error)) from error
    if library.whisper_token_beg(context) != pw.whisper_token_beg(handle):
        raise RawDecoderError("the library is not the one that the binding uses")
    return RawDecoder(library, context, vocabulary, most, threads)


def _library(module: Path) -> ctypes.CDLL:
    # The loader looks up a symbol in the extension module's own dependencies, whatever their names.
    library = ctypes.CDLL(str(module))
    library.whisper_decode.restype = ctypes.c_int
    library.whisper_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.whisper_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    library.whisper_get_logits.argtypes = [ctypes.c_void_p]
    with contextlib.suppress(AttributeError):
        library.node_whisper_last_logits.restype = ctypes.POINTER(ctypes.c_float)
        library.node_whisper_last_logits.argtypes = [ctypes.c_void_p]
    library.whisper_token_beg.restype = ctypes.c_int
    library.whisper_token_beg.argtypes = [ctypes.c_void_p]
    return library


def _address(handle: Any, sizes: bytes) -> int:
    """Return the context's address.

    `sizes` must occur in its first bytes: the model's vocabulary and audio context, one after the
    other (whisper.cpp's `whisper_hparams`).
    """
    # A read through the file returns an error for an invalid address; a pointer would crash.
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        wrapper = _pointer(memory, id(handle) + _VALUE_OFFSET)
        context = _pointer(memory, wrapper)
        if sizes not in os.pread(memory, _CONTEXT_BYTES, context):
            raise RawDecoderError("the binding's objects have an unknown memory layout")
    finally:
        os.close(memory)
    return context


def _pointer(memory: int, address: int) -> int:
    try:
        (value,) = struct.unpack("=Q", os.pread(memory, 8, address))
    except (struct.error, OverflowError) as error:
        raise RawDecoderError("the binding's objects have an unknown memory layout") from error
    return int(value)
