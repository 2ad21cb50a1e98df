"""Reads out of whisper.cpp how probable each language is, beside what the binding offers.

Whisper names a language by the token that follows its start token, so the decoder's logits behind
the start token alone are its opinion of the language (openai/whisper, `detect_language`).
whisper.cpp computes them when it detects a language, tells only the best of them, and can be asked
for the rest. Behind any encoder pass they cost one step of the decoder, about a hundredth of the
pass. The binding has neither call in a usable form, so they are made through ctypes, which releases
the GIL, on the context that the binding's object points to. Worker thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SWITCH_RATIO = 4.0
"""How many times as probable as the expected language another one has to be. With base on 94 cuts
and clips of 1.5 s and more in five languages the right one was beaten 2.6 times at the most while
it lasted, and a wrong one at least 6.6 times where the language had changed, but in 12 of 376 cases
(docs/lab-book.md, "Languages")."""

SWITCH_SECONDS = 1.5
"""A shorter window tells too little: of 17 cuts of a second 7 were taken for another language."""

_VALUE_OFFSET = 16
"""Where pybind11's instance of a simple type points to its value: behind the object's head."""


class ProbeError(Exception):
    """This engine's context cannot be read; the message says why."""


class LanguageProbe:
    """The languages' probabilities in one whisper.cpp context.

    `library` is the extension module, `handle` the binding's context, `start` its start token,
    `vocabulary` its number of tokens, `codes` the languages in whisper.cpp's order. Raises
    `ProbeError` where functions are not exported or the context is not where it should be.
    """

    def __init__(
        self, library: Path, handle: Any, start: int, vocabulary: int, codes: Sequence[str]
    ) -> None:
        try:
            engine = ctypes.CDLL(str(library))
            self._logits = engine.whisper_get_logits
            self._decode = engine.whisper_decode
            count, first = engine.whisper_model_n_vocab, engine.whisper_token_lang
        except (OSError, AttributeError) as error:
            raise ProbeError(str(error)) from error
        self._logits.argtypes = [ctypes.c_void_p]
        self._logits.restype = ctypes.POINTER(ctypes.c_float)
        self._decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 3]
        self._decode.restype = ctypes.c_int
        count.argtypes, count.restype = [ctypes.c_void_p], ctypes.c_int
        first.argtypes, first.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int
        self._context = _context_of(handle)
        if count(self._context) != vocabulary:
            raise ProbeError("the binding's context is laid out in another way")
        self._start = ctypes.c_int32(start)
        self._first = int(first(self._context, 0))
        self._codes = tuple(codes)

    def read(self) -> dict[str, float]:
        """Probabilities by code after a detection, which leaves the start token's logits behind."""
        total = self._first + len(self._codes)
        logits = np.ctypeslib.as_array(self._logits(self._context), shape=(total,))
        scores = logits[self._first :].astype(np.float64)
        scores = np.exp(scores - scores.max())
        return dict(zip(self._codes, (scores / scores.sum()).tolist(), strict=True))

    def hear(self, threads: int) -> dict[str, float]:
        """The same for what the encoder has just taken in, by one decoder step. Not for the middle
        of decoding: it overwrites the decoder's memory."""
        code = self._decode(self._context, ctypes.byref(self._start), 1, 0, threads)
        if code != 0:
            raise ProbeError(f"whisper_decode failed with code {code}")
        return self.read()


@dataclass
class LanguageWatch:
    """Looks out for a change of language while a window is decoded.

    `hear` gives the probabilities once the encoder has run; `expected` is the language of the
    window before, `among` those that are allowed, `seconds` the window's length.
    """

    hear: Callable[[], Mapping[str, float]]
    expected: str
    among: Collection[str]
    seconds: float
    language: str = ""
    """What the window is in; empty until the encoder has run."""
    probability: float | None = None

    @property
    def changed(self) -> bool:
        return self.language not in ("", self.expected)

    def listen(self) -> bool:
        """Called after each pass of encoder and decoder: whether to give up the window in the
        expected language. Only the first pass is the encoder's."""
        if not self.language:
            self.language = self.expected
            heard = confined(self.hear(), self.among)
            best = max(heard, key=heard.__getitem__)
            expected = heard.get(self.expected, 0.0)
            if self.seconds >= SWITCH_SECONDS and heard[best] >= SWITCH_RATIO * expected:
                self.language = best
            self.probability = heard.get(self.language)
        return self.changed


def confined(probabilities: Mapping[str, float], among: Collection[str]) -> dict[str, float]:
    """The probabilities of the languages in `among`, adding up to 1; of all where it is empty."""
    kept = {code: p for code, p in probabilities.items() if not among or code in among}
    total = sum(kept.values())
    # Nothing is left of what is too improbable for a float: then they are all alike.
    return {code: p / total if total else 1 / len(kept) for code, p in kept.items()}


def _context_of(handle: Any) -> int:
    """The address of the `whisper_context` that a binding's wrapper holds."""
    spans = _writable()
    address = id(handle) + _VALUE_OFFSET
    # From the Python object to the wrapper in C++, and from that to what it wraps.
    for _ in range(2):
        if not any(low <= address and address + 8 <= high for low, high in spans):
            raise ProbeError("the binding's context is not where it is looked for")
        address = ctypes.c_uint64.from_address(address).value
    if not any(low <= address < high for low, high in spans):
        raise ProbeError("the binding's context is not where it is looked for")
    return address


def _writable() -> list[tuple[int, int]]:
    """The process's memory that can be written, as spans of addresses."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError as error:
        raise ProbeError(f"the process's memory map cannot be read: {error}") from error
    found = []
    for line in lines:
        span, permissions = line.split()[:2]
        if permissions.startswith("rw"):
            low, high = span.split("-")
            found.append((int(low, 16), int(high, 16)))
    return found
