"""The dialect of whisper-asr-webservice (`/asr`, `/detect-language`), which Bazarr and Subgen use.

The audio is in the form field `audio_file` and the options in the query. With `encode=false` the
audio is 16-bit samples, little-endian, mono, at 16 kHz. Written from that project's documentation
and from the requests of its clients. Pure.
"""

from __future__ import annotations

from typing import Any, cast, get_args

from app.messages import BAD_FIELD, RawFormat, Segment, Task, Transcript
from app.protocols.http import field_table
from app.protocols.http import fields as form_fields
from app.protocols.http.dialect import Format, ReplyOptions, segment_extra
from app.protocols.http.field_table import Field
from app.protocols.http.form import Fields, FormError
from app.protocols.http.openai import mean_logprob
from app.protocols.languages import NAMES

OUTPUTS: dict[str, Format] = {
    "txt": "text",
    "vtt": "vtt",
    "srt": "srt",
    "tsv": "tsv",
    "json": "verbose_json",
}

_TASK: Task = "transcribe"
_SAMPLES_ARE = "samples of 16 bits, little-endian, mono, at 16 kHz"
_SAMPLES = RawFormat("s16", 16_000, 1, "little")


class AsrWebservice:
    """The API of whisper-asr-webservice as a `Dialect`."""

    file_field = "audio_file"
    prompt_field = "initial_prompt"
    fields: tuple[Field, ...] = (
        Field("task", "`translate` answers in English.", values=get_args(Task), default=_TASK),
        field_table.LANGUAGE,
        field_table.prompt("initial_prompt"),
        Field("output", "The form of the answer.", values=tuple(OUTPUTS), default="txt"),
        field_table.flag("word_timestamps", "Give the words in `json`."),
        field_table.flag("encode", f"`false` for {_SAMPLES_ARE}.", True),
        field_table.TEMPERATURE,
        *field_table.COMMON,
    )

    def read_options(self, fields: Fields, task: Task) -> ReplyOptions:
        output = form_fields.last(fields, "output") or "txt"
        if output not in OUTPUTS:
            raise FormError(BAD_FIELD, f"output must be one of {', '.join(OUTPUTS)}")
        return ReplyOptions(
            dialect=self,
            task=self._task(fields),
            format=OUTPUTS[output],
            words=form_fields.flag(fields, "word_timestamps"),
            temperature=form_fields.temperature(fields),
        )

    def read_language(self, fields: Fields) -> str | None:
        return form_fields.language(form_fields.last(fields, "language"))

    def read_samples(self, fields: Fields) -> RawFormat | None:
        return None if form_fields.flag(fields, "encode", True) else _SAMPLES

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        return {"detail": message, "code": code}

    def text(self, transcript: Transcript, options: ReplyOptions) -> str:
        if options.format == "text":
            return "".join(f"{segment.text}\n" for segment in transcript.segments)
        return transcript.text

    def brief(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {"text": transcript.text}

    def extra(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {}

    def language(self, transcript: Transcript, options: ReplyOptions) -> str:
        return transcript.language or ""

    def details(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {
            "segments": [_segment(number, one) for number, one in enumerate(transcript.segments)]
        }

    def _task(self, fields: Fields) -> Task:
        value = form_fields.last(fields, "task") or _TASK
        if value not in get_args(Task):
            raise FormError(BAD_FIELD, "task must be transcribe or translate")
        return cast(Task, value)


class LanguageDetection(AsrWebservice):
    """The route that tells the language. Its reply has the format `json`."""

    fields = (
        field_table.prompt("initial_prompt"),
        field_table.flag("encode", f"`false` for {_SAMPLES_ARE}.", True),
        *field_table.COMMON,
    )

    def read_options(self, fields: Fields, task: Task) -> ReplyOptions:
        return ReplyOptions(dialect=self, task="transcribe", format="json", detect_only=True)

    def read_language(self, fields: Fields) -> str | None:
        return "auto"

    def brief(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        code = transcript.language or ""
        return {
            "detected_language": NAMES.get(code, code),
            "language_code": code,
            "confidence": transcript.language_probability,
        }


ASR_WEBSERVICE = AsrWebservice()
LANGUAGE_DETECTION = LanguageDetection()


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": number,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "avg_logprob": mean_logprob(segment),
        **segment_extra(segment),
    }
    if segment.words is not None:
        fields["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "probability": round(word.confidence, 3),
            }
            for word in segment.words
        ]
    return fields
