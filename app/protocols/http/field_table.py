"""The fields of requests with audio as data: names, types and ranges, for `/openapi.json`.

Each dialect lists the fields that it reads; `tests/test_field_table.py` holds the lists and the
readers to each other. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from app.limits import (
    MAX_CUE_SECONDS,
    MAX_LINE_COUNT,
    MAX_LINE_WIDTH,
    MAX_PROMPT_BYTES,
    MIN_CUE_SECONDS,
    CueLayout,
)
from app.messages import ChannelMode
from app.protocols.languages import MAX_LANGUAGES

Kind = Literal["text", "flag", "number", "whole", "list"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its meaning in a sentence, and the values that it may have.

    `values` are the allowed values; of a list, those of its elements. `least` and `most` are the
    range of a number; of a text or list, `most` is the greatest length. `default` is None if there
    is none, or if it depends on the node's options; `about` then says so.
    """

    name: str
    about: str
    kind: Kind = "text"
    values: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    default: str | float | bool | None = None


_CUES = CueLayout()

LANGUAGE = Field(
    "language",
    "A code such as `en` or `en-GB`, an English name such as `german`, `auto` to detect it, or "
    "`multi` to detect it again and again. The default is the node's `--language`.",
)

TEMPERATURE = Field(
    "temperature", "The initial temperature of the decoder.", "number", least=0, most=1, default=0
)


def prompt(name: str) -> Field:
    """Return the field of the prompt."""
    about = "Words or names to expect. The default is the node's `--prompt`."
    return Field(name, about, most=MAX_PROMPT_BYTES)


def flag(name: str, about: str, default: bool = False) -> Field:
    """Return a field that is true or false."""
    return Field(name, about, "flag", default=default)


COMMON: tuple[Field, ...] = (
    Field("model", "Any name: the loaded model serves it. `--strict-model` rejects other names."),
    Field(
        "channel_mode",
        "`split` transcribes each channel by itself.",
        values=get_args(ChannelMode),
        default="auto",
    ),
    Field(
        "languages",
        "The languages that detection chooses from. The default is the node's `--languages`.",
        "list",
        most=MAX_LANGUAGES,
    ),
    Field("keywords", "Words to expect, read as the end of the prompt.", "list"),
    Field("hotwords", "The same as `keywords`.", "list"),
    Field(
        "max_line_width",
        "Most columns of a line of a subtitle; 0 gives one cue for each segment.",
        "whole",
        least=0,
        most=MAX_LINE_WIDTH,
        default=_CUES.width,
    ),
    Field(
        "max_line_count",
        "Most lines of a subtitle.",
        "whole",
        least=1,
        most=MAX_LINE_COUNT,
        default=_CUES.lines,
    ),
    Field(
        "max_cue_seconds",
        "Most seconds of a subtitle.",
        "number",
        least=MIN_CUE_SECONDS,
        most=MAX_CUE_SECONDS,
        default=_CUES.seconds,
    ),
)
"""The fields that every dialect reads."""
