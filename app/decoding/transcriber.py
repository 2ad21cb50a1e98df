"""The interface of an engine, its options and its errors.

`app/decoding/engine.py` implements it. This module is separate so that importing it does not load
whisper.cpp: the worker, the server and the tests with a fake engine need only the interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as Interface

from app.audio.stream import Samples
from app.decoding.hypothesis import Hypothesis


class EngineError(Exception):
    """whisper.cpp failed, for a reason that is not the audio."""


class EngineAborted(Exception):
    """The node is stopping and has aborted the decode."""


class GivenUp(Exception):
    """The decode was given up for work that is more urgent; it may be repeated later."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model's abilities. `languages` are codes; English-only models have just `en`."""

    name: str
    multilingual: bool
    languages: frozenset[str]


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """The options of one window's decode.

    `language` is a code or `auto`. `temperature`, 0 to 1, is the first one tried: 0 takes the most
    probable token, higher ones sample. With `only_sure` only the cheap contexts are tried, and a
    result that is not plausible is dropped. A `partial` window is the beginning of a longer one: it
    gets a single attempt, which is dropped as well if it is not plausible. `prompt` is the client's
    or the node's, `carried` the text of the previous window (`app/decoding/prompt.py`).

    With `auto`, `languages` are the codes to choose from; all if it is empty. `expected_language`
    is the language of the previous window and of `carried`. The window is decoded in it without a
    detection, unless another language is much more probable; then `carried` is not used.

    `threads` is the number of threads of this decode; 0 is the engine's own number. With `tokens`
    the segments have their tokens.
    """

    language: str = "en"
    translate: bool = False
    prompt: str = ""
    carried: str = ""
    words: bool = False
    temperature: float = 0.0
    only_sure: bool = False
    partial: bool = False
    languages: tuple[str, ...] = ()
    expected_language: str | None = None
    threads: int = 0
    tokens: bool = False


class Transcriber(Interface):
    """An engine for one window at a time. All calls come from one thread, `warm_up` first."""

    def warm_up(self) -> None:
        """Prepare memory and threads so that the first window is fast. Raises `EngineError`."""

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode one window: float32, shape [n], 16 kHz, at most 30 s.

        Raises `EngineError` and `EngineAborted`.
        """

    def rest(self) -> None:
        """Release memory and prepare for a short window: no work is waiting."""


class Yielding(Transcriber, Interface):
    """An engine whose decode can be given up."""

    def give_up(self) -> None:
        """Make the decode in progress end soon with `GivenUp`, and any later one, until `resume`.
        May be called on any thread."""

    def resume(self) -> None:
        """Let decodes begin again after `give_up`. No decode is in progress."""
