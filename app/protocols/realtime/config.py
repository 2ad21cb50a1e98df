"""The configuration of a transcription session, and its updates by the client.

The current API nests the fields in `audio.input`; the older one (`OpenAI-Beta: realtime=v1`) has
them flat. An update may use either form. A field that is absent stays; null restores the default.
Shapes as in OpenAI's Python package 3.54. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.limits import prompt_fault
from app.protocols.languages import (
    MAX_LANGUAGES,
    WANTED,
    LanguageError,
    contradiction,
    language_code,
    language_codes,
)
from app.protocols.model_names import ModelNames
from app.protocols.realtime.turns import DEFAULT_TURNS, Turns, read_turns

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Hz of PCM. OpenAI takes 24,000 only."""

DEFAULT_RATE = 24_000
G711_RATE = 8_000

PARTIALS = "item.input_audio_transcription.partial"
"""A value of `include` that OpenAI's API does not have: partial results whole, and confidences."""

LOGPROBS = "item.input_audio_transcription.logprobs"
"""A value of `include`: the probabilities of the tokens."""

Coding = Literal["pcm", "pcmu", "pcma"]

MODERN: dict[str, Coding] = {"audio/pcm": "pcm", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}
OLDER: dict[str, Coding] = {"pcm16": "pcm", "g711_ulaw": "pcmu", "g711_alaw": "pcma"}


class ConfigError(Exception):
    """An update that the node cannot follow. `param` is the path of the field."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Node:
    """The node as its sessions see it: the names of the model, its languages, and the settings for
    clients that ask for nothing else. `threshold` is that of the speech detector."""

    names: ModelNames
    languages: frozenset[str]
    language: str
    threshold: float
    multilingual: bool


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The coding of the samples, one channel, and their rate in Hz."""

    coding: Coding = "pcm"
    rate: int = DEFAULT_RATE

    @property
    def sample_bytes(self) -> int:
        return 2 if self.coding == "pcm" else 1


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration in effect. `language` None is the node's; with `turns` None the client
    commits the audio."""

    format: AudioFormat = AudioFormat()
    model: str | None = None
    """The model that the client asked for."""
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    turns: Turns | None = DEFAULT_TURNS
    partials: bool = False
    """The client also wants the text that may still change."""
    logprobs: bool = False
    """The client also wants the probabilities of the tokens."""

    @property
    def include(self) -> list[str]:
        """The values of `include` in effect."""
        known = {PARTIALS: self.partials, LOGPROBS: self.logprobs}
        return [name for name, wanted in known.items() if wanted]

    @property
    def whole_prompt(self) -> str:
        """The prompt and the keywords. The keywords come last: of a long prompt the engine reads
        the end."""
        return " ".join(part for part in (self.prompt, ", ".join(self.keywords)) if part)


def updated(config: Config, session: Mapping[str, Any], node: Node) -> Config:
    """Return `config` with the fields of an update's `session`. Raises `ConfigError`."""
    if session.get("type", "transcription") != "transcription":
        raise ConfigError(
            "session.type",
            "this node has sessions of type transcription only, without a conversation",
        )
    if "include" in session:
        wanted = _texts(session["include"], "session.include")
        config = replace(config, partials=PARTIALS in wanted, logprobs=LOGPROBS in wanted)
    config = _older(config, session, node)
    audio = _object(session, "audio", "session.audio")
    if "input" in audio:
        config = _modern(config, _object(audio, "input", "session.audio.input"), node)
    return config


def _modern(config: Config, fields: Mapping[str, Any], node: Node) -> Config:
    path = "session.audio.input"
    if "format" in fields:
        config = replace(config, format=_format(fields["format"], f"{path}.format"))
    if "transcription" in fields:
        config = _transcription(config, fields["transcription"], f"{path}.transcription", node)
    if "turn_detection" in fields:
        config = _turns(config, fields["turn_detection"], f"{path}.turn_detection")
    return config


def _older(config: Config, session: Mapping[str, Any], node: Node) -> Config:
    if "input_audio_format" in session:
        coding = _choice(
            session["input_audio_format"] or "pcm16", OLDER, "session.input_audio_format"
        )
        rate = DEFAULT_RATE if coding == "pcm" else G711_RATE
        config = replace(config, format=AudioFormat(coding, rate))
    if "input_audio_transcription" in session:
        path = "session.input_audio_transcription"
        config = _transcription(config, session["input_audio_transcription"], path, node)
    if "turn_detection" in session:
        config = _turns(config, session["turn_detection"], "session.turn_detection")
    return config


def _format(value: Any, path: str) -> AudioFormat:
    if value is None:
        return AudioFormat()
    if isinstance(value, str):
        # Some clients send the older name here.
        coding = _choice(value, {**OLDER, **MODERN}, path)
        return AudioFormat(coding, DEFAULT_RATE if coding == "pcm" else G711_RATE)
    if not isinstance(value, dict):
        raise ConfigError(path, "format must be an object with a type", "invalid_type")
    coding = _choice(value.get("type", "audio/pcm"), MODERN, f"{path}.type")
    if coding != "pcm":
        return AudioFormat(coding, G711_RATE)
    rate = value.get("rate")
    if rate is None:
        return AudioFormat()
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        limits = f"from {MIN_RATE} to {MAX_RATE}"
        raise ConfigError(f"{path}.rate", f"rate must be a whole number of Hz {limits}")
    return AudioFormat(coding, rate)


def _transcription(config: Config, value: Any, path: str, node: Node) -> Config:
    if value is None:
        return replace(config, language=None, languages=(), prompt="", keywords=())
    if not isinstance(value, dict):
        raise ConfigError(path, "transcription must be an object", "invalid_type")
    if "model" in value:
        model = _text(value, "model", path)
        if refusal := node.names.refusal(model):
            raise ConfigError(f"{path}.model", refusal.message, refusal.code)
        config = replace(config, model=model)
    if "language" in value:
        language = _language(_text(value, "language", path), f"{path}.language", node)
        config = replace(config, language=language)
    if "languages" in value:
        config = replace(config, languages=_languages(value["languages"], path, node))
    if "prompt" in value:
        config = replace(config, prompt=_text(value, "prompt", path) or "")
    if "keywords" in value:
        config = replace(config, keywords=_texts(value["keywords"], f"{path}.keywords"))
    if reason := contradiction(config.language, config.languages):
        raise ConfigError(f"{path}.languages", f"languages {reason}")
    if reason := prompt_fault(config.whole_prompt):
        raise ConfigError(f"{path}.prompt", f"the prompt {reason}")
    return config


def _language(value: str | None, path: str, node: Node) -> str | None:
    if not value:
        return None
    code = language_code(value)
    if code is None:
        raise ConfigError(path, f"language must be {WANTED}")
    if code in ("auto", "multi"):
        # With one language there is nothing to detect, and some clients always send auto.
        return code if node.multilingual else None
    _served(code, path, node)
    return code


def _languages(value: Any, path: str, node: Node) -> tuple[str, ...]:
    path = f"{path}.languages"
    try:
        codes = language_codes(_texts(value, path)) if value else ()
    except LanguageError as error:
        raise ConfigError(path, f"languages {error}") from None
    if len(codes) > MAX_LANGUAGES:
        raise ConfigError(path, f"languages takes at most {MAX_LANGUAGES} codes")
    for code in codes:
        _served(code, path, node)
    return codes


def _served(code: str, path: str, node: Node) -> None:
    if code not in node.languages:
        raise ConfigError(path, f"{node.names.name} does not support the language {code}")


def _turns(config: Config, value: Any, path: str) -> Config:
    try:
        return replace(config, turns=read_turns(value, config.turns))
    except ValueError as error:
        raise ConfigError(path, str(error)) from None


def _object(fields: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(path, f"{name} must be an object", "invalid_type")
    return value


def _text(fields: Mapping[str, Any], name: str, path: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{path}.{name}", f"{name} must be a string", "invalid_type")
    return value


def _texts(value: Any, path: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(path, "the value must be a list of strings", "invalid_type")
    return tuple(" ".join(one.split()) for one in value)


def _choice(value: Any, choices: Mapping[str, Coding], path: str) -> Coding:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(path, f"the format must be one of {', '.join(choices)}")
    return choices[value]
