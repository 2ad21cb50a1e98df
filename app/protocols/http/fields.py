"""The form fields of both HTTP dialects: one rule per field, each in a function of its own.

Pure: a form's fields in, a value out, `FormError` if a field is invalid. A field means the same as
in `app/protocols/native/header.py`.
"""

from __future__ import annotations

from typing import cast, get_args

from app.limits import (
    MAX_CUE_SECONDS,
    MAX_LINE_COUNT,
    MAX_LINE_WIDTH,
    MIN_CUE_SECONDS,
    CueLayout,
    prompt_fault,
)
from app.messages import BAD_FIELD, ChannelMode
from app.protocols.http.form import Fields, FormError
from app.protocols.http.lists import list_of
from app.protocols.languages import (
    WANTED,
    LanguageError,
    contradiction,
    language_code,
    language_codes,
)
from app.protocols.model_names import ModelNames

_TRUE = frozenset({"true", "1", "yes", "y"})
_CUE_FIELDS = ("max_line_width", "max_line_count", "max_cue_seconds")
_FALSE = frozenset({"false", "0", "no", "n", ""})


def last(fields: Fields, name: str) -> str | None:
    """Return a field's value; the last one if it is repeated, as most form parsers do."""
    values = fields.get(name)
    return values[-1].strip() if values else None


def model(fields: Fields, served: ModelNames) -> str | None:
    """Return the model that the client names; None if it names none."""
    asked = last(fields, "model") or None
    if failure := served.refusal(asked):
        raise FormError(failure.code, failure.message)
    return asked


def language(value: str | None) -> str | None:
    """Return the code of a language field's value; None if it is empty."""
    if not value:
        return None
    code = language_code(value)
    if code is None:
        raise FormError(BAD_FIELD, f"language must be {WANTED}")
    return code


def channel_mode(fields: Fields) -> ChannelMode:
    """Return the value of `channel_mode`."""
    value = last(fields, "channel_mode") or "auto"
    if value not in get_args(ChannelMode):
        raise FormError(BAD_FIELD, "channel_mode must be auto or split")
    return cast(ChannelMode, value)


def languages(fields: Fields, language_field: str | None) -> tuple[str, ...]:
    """Return the languages that may be detected; empty for all."""
    values = list_of(fields, "languages")
    if not values:
        return ()
    try:
        codes = language_codes(values)
    except LanguageError as error:
        raise FormError(BAD_FIELD, f"languages {error}") from None
    if reason := contradiction(language_field, codes):
        raise FormError(BAD_FIELD, f"languages {reason}")
    return codes


def prompt(fields: Fields, name: str = "prompt") -> str:
    """Return the prompt `name` unchanged, and after it the words of `keywords` and `hotwords`."""
    value = fields.get(name, [""])[-1]
    # Last, because of a long prompt the engine reads the end.
    words = ", ".join(word for name in ("keywords", "hotwords") for word in list_of(fields, name))
    value = f"{value} {words}".lstrip() if words else value
    if fault := prompt_fault(value):
        raise FormError(BAD_FIELD, f"{name} {fault}")
    return value


def temperature(fields: Fields) -> float:
    """Return the temperature, 0 to 1."""
    text = last(fields, "temperature") or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # Written so that NaN fails too.
    if not 0.0 <= value <= 1.0:
        raise FormError(BAD_FIELD, "temperature must be a number from 0 to 1")
    return value


def cues(fields: Fields) -> CueLayout:
    """Return the size of subtitle cues; its width is 0 if segments are not divided into cues."""
    default = CueLayout()
    return CueLayout(
        whole(fields, "max_line_width", default.width, 0, MAX_LINE_WIDTH),
        whole(fields, "max_line_count", default.lines, 1, MAX_LINE_COUNT),
        _cue_seconds(fields, default.seconds),
    )


def names_cues(fields: Fields) -> bool:
    """Return whether a field gives the size of cues."""
    return any(last(fields, name) for name in _CUE_FIELDS)


def flag(fields: Fields, name: str, default: bool = False) -> bool:
    """Return the truth value of the field `name`."""
    value = last(fields, name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise FormError(BAD_FIELD, f"{name} must be true or false")


def whole(fields: Fields, name: str, default: int, least: int, most: int) -> int:
    """Return the whole number in the field `name`."""
    text = last(fields, name) or str(default)
    # isdecimal() alone accepts the digits of other scripts.
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not least <= value <= most:
        raise FormError(BAD_FIELD, f"{name} must be a whole number from {least} to {most}")
    return value


def _cue_seconds(fields: Fields, default: float) -> float:
    text = last(fields, "max_cue_seconds") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not MIN_CUE_SECONDS <= value <= MAX_CUE_SECONDS:
        wanted = f"{MIN_CUE_SECONDS:g} to {MAX_CUE_SECONDS:g}"
        raise FormError(BAD_FIELD, f"max_cue_seconds must be a number from {wanted}")
    return value
