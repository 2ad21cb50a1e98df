"""The fields that other servers' documentation lists and that this node does not read.

A field that would change the answer is rejected by name, unless its value changes nothing. All
other fields are ignored, also those that are not in this table; the answer names them in
`X-Ignored-Fields`. docs/fields.md shows the table. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.messages import BAD_FIELD
from app.protocols.http.field_table import Field
from app.protocols.http.form import Fields, FormError


@dataclass(frozen=True, slots=True)
class Unread:
    """One field. `servers` document it, and `reason` says why the node does not read it.

    If there are `neutral` values, which change nothing, every other value is rejected; numbers are
    compared as numbers. If `neutral` is None, the field is ignored.
    """

    name: str
    servers: str
    reason: str
    neutral: tuple[str, ...] | None = None

    def allows(self, value: str) -> bool:
        """Return whether the node may ignore this value."""
        return self.neutral is None or _plain(value) in ("", "null", *map(_plain, self.neutral))


_ITEM = re.compile(r"[^\[]*\[\d*\]")
"""An element of a list, as in `app/protocols/http/lists.py`."""

_OFF = ("false", "no", "n", "0")
_OPENAI, _CPP, _ASR, _FASTER = "OpenAI", "whisper.cpp", "whisper-asr-webservice", "faster-whisper"
_VLLM, _GROQ, _MISTRAL = "vLLM", "Groq", "Mistral"
_SPEAKERS = "the node does not tell speakers apart"
_PART = "the node transcribes the whole file; cut it first"
_SAMPLING = "the node has its own way of sampling"

REJECTED: tuple[Unread, ...] = (
    Unread("logprobs", _OPENAI, "`include=logprobs` asks for the probabilities of tokens", _OFF),
    Unread("known_speaker_names", _OPENAI, _SPEAKERS, ()),
    Unread("known_speaker_references", _OPENAI, _SPEAKERS, ()),
    Unread("offset_t", _CPP, _PART, ("0",)),
    Unread("duration", _CPP, _PART, ("0",)),
    Unread("offset_n", _CPP, "segments are numbered from the first", ("0",)),
    Unread("diarize", f"{_CPP}, {_ASR}, {_MISTRAL}", _SPEAKERS, _OFF),
    Unread("tinydiarize", _CPP, _SPEAKERS, _OFF),
    Unread("to_language", _VLLM, "the node translates into English only", ("en", "english")),
    Unread("max_completion_tokens", _VLLM, "the node gives the whole text", ()),
    Unread("top_p", _VLLM, _SAMPLING, ("1",)),
    Unread("top_k", _VLLM, _SAMPLING, ("0", "-1")),
    Unread("min_p", _VLLM, _SAMPLING, ("0",)),
    Unread("repetition_penalty", _VLLM, _SAMPLING, ("1",)),
    Unread("frequency_penalty", _VLLM, _SAMPLING, ("0",)),
    Unread("presence_penalty", _VLLM, _SAMPLING, ("0",)),
    Unread("url", _GROQ, "the node fetches no files; send the audio", ()),
    Unread("file_url", _MISTRAL, "the node fetches no files; send the audio", ()),
    Unread("file_id", _MISTRAL, "the node stores no files; send the audio", ()),
)
"""Fields that would change the answer."""

_SPEECH = "the node always leaves out audio without speech, by `--vad-threshold`"
_SEARCH = "the node chooses the search for each window, and repeats one of which it is not sure"
_CONTEXT = "the node decides for each window which text it follows"

IGNORED: tuple[Unread, ...] = (
    Unread("chunking_strategy", _OPENAI, "the node always cuts the audio in pauses"),
    Unread("user", _OPENAI, "clients are told apart by their addresses"),
    Unread("best_of", f"{_CPP}, {_FASTER}", _SEARCH),
    Unread("beam_size", f"{_CPP}, {_FASTER}", _SEARCH),
    Unread("temperature_inc", _CPP, _SEARCH),
    Unread("entropy_thold", _CPP, _SEARCH),
    Unread("logprob_thold", _CPP, _SEARCH),
    Unread("no_speech_thold", _CPP, _SEARCH),
    Unread("word_thold", _CPP, "the node takes the times of words from the model's attention"),
    Unread("audio_ctx", _CPP, "`--encoder-context`, by default as much as the window needs"),
    Unread("max_context", _CPP, _CONTEXT),
    Unread("no_context", _CPP, _CONTEXT),
    Unread("carry_initial_prompt", _CPP, _CONTEXT),
    Unread("split_on_word", _CPP, "the node never divides a word"),
    Unread("suppress_non_speech", _CPP, "`--keep-markers`"),
    Unread("suppress_nst", _CPP, "`--keep-markers`"),
    Unread("no_language_probabilities", _CPP, "the answer has none"),
    Unread("debug_mode", _CPP, "`--log-verbose`"),
    Unread("vad", _CPP, _SPEECH),
    Unread("vad_threshold", _CPP, _SPEECH),
    Unread("vad_min_speech_duration_ms", _CPP, _SPEECH),
    Unread("vad_min_silence_duration_ms", _CPP, _SPEECH),
    Unread("vad_max_speech_duration_s", _CPP, _SPEECH),
    Unread("vad_speech_pad_ms", _CPP, _SPEECH),
    Unread("vad_samples_overlap", _CPP, _SPEECH),
    Unread("vad_filter", f"{_ASR}, {_FASTER}", _SPEECH),
    Unread("vad_parameters", _FASTER, _SPEECH),
    Unread("min_speakers", _ASR, "it belongs to `diarize`, which is rejected"),
    Unread("max_speakers", _ASR, "it belongs to `diarize`, which is rejected"),
    Unread("without_timestamps", _FASTER, "the decoder always writes times; `text` has none"),
    Unread("condition_on_previous_text", _FASTER, _CONTEXT),
    Unread("patience", _FASTER, _SEARCH),
    Unread("length_penalty", f"{_FASTER}, {_VLLM}", _SEARCH),
    Unread("use_beam_search", _VLLM, _SEARCH),
    Unread("n", _VLLM, _SEARCH),
    Unread("compression_ratio_threshold", _FASTER, _SEARCH),
    Unread("log_prob_threshold", _FASTER, _SEARCH),
    Unread("no_speech_threshold", _FASTER, _SEARCH),
    Unread("batch_size", _FASTER, "the node shares the engine among all clients"),
    Unread("seed", _VLLM, "without a temperature the same audio gives the same text"),
    Unread("stream_include_usage", _VLLM, "the last event always has `usage`"),
    Unread("stream_continuous_usage_stats", _VLLM, "the last event has `usage`"),
)
"""Fields without a meaning here."""

UNREAD = {one.name: one for one in (*REJECTED, *IGNORED)}


def ignored(fields: Fields, known: Iterable[Field]) -> tuple[str, ...]:
    """Return the names of the fields that are ignored; `known` are those that the dialect reads.
    Lists and objects count by the name before the bracket. Raises `FormError` for a field that is
    rejected."""
    read = {field.name: field.kind for field in known}
    found: dict[str, None] = {}
    for key, values in fields.items():
        name, bracket, _ = key.partition("[")
        unread = UNREAD.get(name)
        if name in read:
            is_item = read[name] == "list" and _ITEM.fullmatch(key)
            if bracket and not is_item:
                kind = "a list" if read[name] == "list" else "one value"
                raise FormError(BAD_FIELD, f"{name} must be {kind}, not {key[:60]!r}")
            continue
        if unread is None or unread.neutral is None:
            found[name] = None
        elif not all(unread.allows(value) for value in values):
            raise FormError(BAD_FIELD, f"{name} is not supported: {unread.reason}")
    return tuple(found)


def _plain(value: str) -> str:
    """Return a value so that equal ones are equal texts."""
    text = value.strip().lower()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
