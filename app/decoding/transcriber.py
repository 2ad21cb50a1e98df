"""What the worker knows of an engine: the interface, its options and its errors.

`app/decoding/engine.py` is the real one. It stands apart so that whoever only names an engine, the
worker, the server and the tests with a fake, does not load whisper.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as Interface

from app.audio.stream import Samples
from app.decoding.hypothesis import Hypothesis


class EngineError(Exception):
    """whisper.cpp reported a failure. It says nothing about the audio."""


class EngineAborted(Exception):
    """The decode was stopped because the node stops."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the loaded model can do. `languages` are codes; English-only models have just `en`."""

    name: str
    multilingual: bool
    languages: frozenset[str]


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How to decode one window. `language` is a code or `auto`; `temperature`, 0 to 1, is where
    decoding starts: 0 takes the most probable token, above it tokens are drawn. With `only_sure` a
    window that gives nothing to be believed at little cost gives nothing. `prompt` is the client's
    or the node's, `carried` the text of the window before (`app/decoding/prompt.py`).

    With `auto`, `languages` are the codes to choose from, all where it is empty.
    `expected_language` is that of the window before, and of `carried`: the window is decoded in it
    without a detection, unless another one turns out to be much more probable; then nothing is
    carried.
    """

    language: str = "en"
    translate: bool = False
    prompt: str = ""
    carried: str = ""
    words: bool = False
    temperature: float = 0.0
    only_sure: bool = False
    languages: tuple[str, ...] = ()
    expected_language: str | None = None


class Transcriber(Interface):
    """One window in, one hypothesis out. Used on one thread only, from its warm-up on."""

    def warm_up(self) -> None:
        """Touch what the first window would otherwise wait for. Raises `EngineError`."""

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode one window: float32, shape [n], 16 kHz, at most 30 s.

        Raises `EngineError` and `EngineAborted`.
        """

    def rest(self) -> None:
        """Nothing is to be decoded for now."""
