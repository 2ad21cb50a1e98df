"""The messages of vosk-server: its options, and its results as Kaldi's recogniser writes them.

Checked against alphacep/vosk-server (`websocket/asr_server.py`) and its clients: Jigasi, Asterisk's
`res_speech_vosk`, FreeSWITCH's `mod_vosk`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.limits import prompt_fault
from app.messages import Segment

DEFAULT_RATE = 8_000
MIN_RATE, MAX_RATE = 8_000, 48_000
"""Hz."""

_QUOTE = "\\u0022"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a `config` message. With `alternatives` a result has a list of them, in which
    the node's only text is the first."""

    rate: int = DEFAULT_RATE
    words: bool = True
    alternatives: bool = False
    prompt: str = ""


def read_options(config: Mapping[str, Any], before: Options) -> Options:
    """Return the options with the fields of `config`. Other fields, such as `model`, are ignored.
    Raises `ValueError`."""
    options = before
    if (rate := config.get("sample_rate")) is not None:
        # A float in Jigasi's messages.
        if type(rate) not in (int, float) or not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"sample_rate must be a number from {MIN_RATE} to {MAX_RATE}")
        options = replace(options, rate=round(rate))
    if (words := config.get("words")) is not None:
        options = replace(options, words=bool(words))
    if (count := config.get("max_alternatives")) is not None:
        if type(count) not in (int, float):
            raise ValueError("max_alternatives must be a number")
        options = replace(options, alternatives=count > 0)
    if (phrases := config.get("phrase_list")) is not None:
        options = replace(options, prompt=_prompt(phrases))
    return options


def partial_json(text: str) -> str:
    """Return the reply while an utterance grows, or there is none."""
    return _json({"partial": text})


def result_json(segments: Sequence[Segment], options: Options) -> str:
    """Return the reply for the segments of finished utterances."""
    text = " ".join(segment.text for segment in segments if segment.text)
    words = [word for segment in segments for word in segment.words or ()]
    result: dict[str, Any] = {}
    if options.words and words:
        result["result"] = [
            {
                "conf": round(word.confidence, 6),
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "word": word.text,
            }
            for word in words
        ]
    result["text"] = text
    if not options.alternatives:
        return _json(result)
    confidences = [segment.confidence for segment in segments]
    confidence = sum(confidences) / len(confidences) if confidences else 1.0
    # Kaldi's word times in an alternative have no confidence of their own.
    if "result" in result:
        result["result"] = [
            {name: value for name, value in word.items() if name != "conf"}
            for word in result["result"]
        ]
    alternative = {"confidence": round(confidence, 6), **result}
    return _json({"alternatives": [alternative]})


def _json(value: Any) -> str:
    # FreeSWITCH's module takes a reply with two quotes in a row for one without text, so a quote
    # within the text must not be written as such.
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"\\(.)", lambda found: _QUOTE if found[1] == '"' else found[0], text)


def _prompt(phrases: Any) -> str:
    if not isinstance(phrases, list) or not all(isinstance(one, str) for one in phrases):
        raise ValueError("phrase_list must be a list of strings")
    # `[unk]` lets a grammar reject other words; a prompt rejects nothing.
    prompt = ", ".join(" ".join(one.split()) for one in phrases if one != "[unk]")
    if reason := prompt_fault(prompt):
        raise ValueError(f"phrase_list {reason}")
    return prompt
