"""What the fields of an upload's form may hold, in OpenAI's API and in whisper.cpp's server.

One rule per field, each in a function of its own; `read` puts them together. Pure: a form's fields
in, a `Request` and the `Wish` for its reply out, `FormError` where a field is wrong. What a field
means to the node is as in `app/protocols/native/header.py`; fields that neither API needs are
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from app.limits import prompt_fault
from app.messages import BAD_FIELD, MODEL_NOT_FOUND, ChannelMode, Request, Task
from app.protocols.http.form import Fields, FormError
from app.protocols.languages import (
    CODES,
    WANTED,
    LanguageError,
    contradiction,
    language_code,
    language_codes,
)

Dialect = Literal["openai", "whisper.cpp"]
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]

_TRUE = frozenset({"true", "1", "yes", "y"})
_FALSE = frozenset({"false", "0", "no", "n", ""})

_STREAMED: tuple[Format, ...] = ("json", "text")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants its reply: what `app/protocols/http/replies.py` goes by."""

    dialect: Dialect
    task: Task
    format: Format = "json"
    segments: bool = True
    words: bool = False
    """What of the two `verbose_json` is to hold."""
    timestamps: bool = True
    """Whether `verbose_json` of whisper.cpp's dialect says when its segments were."""
    stream: bool = False
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """The model that answers. `names` are what a request may call it."""

    name: str
    names: frozenset[str]
    english_only: bool


def read(
    fields: Fields, dialect: Dialect, request: Request, served: Served
) -> tuple[Request, Wish]:
    """`request` with what the form says, and what its reply is to look like. Raises `FormError`."""
    _check_model(fields, served)
    openai = dialect == "openai"
    wish = _openai_wish(fields, request.task) if openai else _inference_wish(fields)
    request = replace(
        request,
        channel_mode=_channel_mode(fields),
        language=(language := _language(fields, dialect, served)),
        languages=_languages(fields, language),
        task=wish.task,
        prompt=_prompt(fields),
        word_timestamps=wish.words,
        reply="segments" if wish.stream else "transcript",
        temperature=wish.temperature,
    )
    return request, wish


def _openai_wish(fields: Fields, task: Task) -> Wish:
    form = _format(fields)
    granularities = _granularities(fields)
    if "word" in granularities and form != "verbose_json":
        message = "timestamp_granularities[] word needs response_format verbose_json"
        raise FormError(BAD_FIELD, message)
    stream = _flag(fields, "stream")
    if stream and form not in _STREAMED:
        raise FormError(BAD_FIELD, f"stream goes with response_format {' or '.join(_STREAMED)}")
    return Wish(
        dialect="openai",
        task=task,
        format=form,
        segments="segment" in granularities,
        words="word" in granularities,
        stream=stream,
        temperature=_temperature(fields),
    )


def _inference_wish(fields: Fields) -> Wish:
    form = _format(fields)
    timestamps = not _flag(fields, "no_timestamps")
    # Its server gives words with verbose_json unless they are switched off.
    words = timestamps and form == "verbose_json" and _flag(fields, "token_timestamps", True)
    return Wish(
        dialect="whisper.cpp",
        task="translate" if _flag(fields, "translate") else "transcribe",
        format=form,
        words=words,
        timestamps=timestamps,
        temperature=_temperature(fields),
    )


def _last(fields: Fields, name: str) -> str | None:
    """A field's value; of several the last one counts, as with most form readers."""
    values = fields.get(name)
    return values[-1].strip() if values else None


def _check_model(fields: Fields, served: Served) -> None:
    model = _last(fields, "model")
    if model and model not in served.names:
        names = ", ".join(sorted(served.names))
        message = f"model {model[:80]!r} is not served here; there is {names}"
        raise FormError(MODEL_NOT_FOUND, message)


def _format(fields: Fields) -> Format:
    value = _last(fields, "response_format") or "json"
    if value not in get_args(Format):
        wanted = ", ".join(get_args(Format))
        raise FormError(BAD_FIELD, f"response_format must be one of {wanted}")
    return cast(Format, value)


def _granularities(fields: Fields) -> frozenset[str]:
    name = "timestamp_granularities"
    values = [value.strip() for key in (f"{name}[]", name) for value in fields.get(key, ())]
    if unknown := set(values) - {"segment", "word"}:
        shown = min(unknown)[:40]
        raise FormError(BAD_FIELD, f"{name}[] must be segment or word, not {shown!r}")
    return frozenset(values or ["segment"])


def _language(fields: Fields, dialect: Dialect, served: Served) -> str | None:
    value = _last(fields, "language")
    if dialect == "whisper.cpp":
        if _flag(fields, "detect_language"):
            value = "auto"
        # Many of its clients always say auto; a model of one language has nothing to detect.
        if value == "auto" and served.english_only:
            return None
    if not value:
        return None
    code = CODES.get(value.lower()) or language_code(value)
    if code is None:
        raise FormError(BAD_FIELD, f"language must be {WANTED}")
    return code


def _channel_mode(fields: Fields) -> ChannelMode:
    value = _last(fields, "channel_mode") or "auto"
    if value not in get_args(ChannelMode):
        raise FormError(BAD_FIELD, "channel_mode must be auto or split")
    return cast(ChannelMode, value)


def _languages(fields: Fields, language: str | None) -> tuple[str, ...]:
    values = [value for name in ("languages[]", "languages") for value in fields.get(name, ())]
    if not values:
        return ()
    try:
        codes = language_codes(values)
    except LanguageError as error:
        raise FormError(BAD_FIELD, f"languages {error}") from None
    if reason := contradiction(language, codes):
        raise FormError(BAD_FIELD, f"languages {reason}")
    return codes


def _prompt(fields: Fields) -> str:
    prompt = fields.get("prompt", [""])[-1]
    if fault := prompt_fault(prompt):
        raise FormError(BAD_FIELD, f"prompt {fault}")
    return prompt


def _temperature(fields: Fields) -> float:
    text = _last(fields, "temperature") or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # Written so that NaN fails it as well.
    if not 0.0 <= value <= 1.0:
        raise FormError(BAD_FIELD, "temperature must be a number from 0 to 1")
    return value


def _flag(fields: Fields, name: str, default: bool = False) -> bool:
    value = _last(fields, name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise FormError(BAD_FIELD, f"{name} must be true or false")
