"""The dialect of whisper.cpp's server (`/inference`): form fields, JSON replies, errors. Pure."""

from __future__ import annotations

from typing import Any

from app.limits import MAX_CUE_SECONDS, MAX_LINE_WIDTH, CueLayout
from app.messages import RawFormat, Segment, Task, Transcript
from app.protocols.http import field_table
from app.protocols.http import fields as form_fields
from app.protocols.http.dialect import ReplyOptions, segment_extra
from app.protocols.http.field_table import Field
from app.protocols.http.form import FILE, Fields
from app.protocols.http.openai import FORMATS, mean_logprob, response_format
from app.protocols.languages import NAMES


class WhisperCpp:
    """The API of whisper.cpp's server as a `Dialect`."""

    file_field = FILE
    prompt_field = "prompt"
    fields = (
        field_table.LANGUAGE,
        field_table.flag("detect_language", "The same as `language=auto`."),
        field_table.flag("translate", "Answer in English."),
        field_table.prompt("prompt"),
        field_table.TEMPERATURE,
        Field("response_format", "The form of the answer.", values=FORMATS, default="json"),
        field_table.flag("no_timestamps", "Leave the times out of `verbose_json`."),
        field_table.flag("token_timestamps", "Give the words in `verbose_json`.", True),
        Field(
            "max_len",
            "Most columns of a segment, which ends between words; 0 does not divide segments.",
            "whole",
            least=0,
            most=MAX_LINE_WIDTH,
            default=0,
        ),
        *field_table.COMMON,
    )

    def read_options(self, fields: Fields, task: Task) -> ReplyOptions:
        form = response_format(fields)
        timestamps = not form_fields.flag(fields, "no_timestamps")
        # That server gives words with verbose_json unless they are switched off.
        width = form_fields.whole(fields, "max_len", 0, 0, MAX_LINE_WIDTH)
        words = form_fields.flag(fields, "token_timestamps", True)
        words = words and timestamps and form == "verbose_json"
        return ReplyOptions(
            dialect=self,
            task="translate" if form_fields.flag(fields, "translate") else "transcribe",
            format=form,
            words=words,
            timestamps=timestamps,
            temperature=form_fields.temperature(fields),
            cues=CueLayout(width, 1, MAX_CUE_SECONDS, whole_words=True) if width else None,
        )

    def read_language(self, fields: Fields) -> str | None:
        detect = form_fields.flag(fields, "detect_language")
        return form_fields.language("auto" if detect else form_fields.last(fields, "language"))

    def read_samples(self, fields: Fields) -> RawFormat | None:
        return None

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        return {"error": message}

    def text(self, transcript: Transcript, options: ReplyOptions) -> str:
        return "".join(f"{segment.text}\n" for segment in transcript.segments)

    def brief(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {"text": self.text(transcript, options)}

    def extra(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {}

    def language(self, transcript: Transcript, options: ReplyOptions) -> str:
        code = transcript.language or ""
        return NAMES.get(code, code)

    def details(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        segments = enumerate(transcript.segments)
        return {"segments": [_segment(number, segment, options) for number, segment in segments]}


WHISPER_CPP = WhisperCpp()


def _segment(number: int, segment: Segment, options: ReplyOptions) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": number, "text": segment.text}
    if options.timestamps:
        fields |= {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    fields |= {"temperature": options.temperature, "avg_logprob": mean_logprob(segment)}
    fields |= segment_extra(segment)
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
