"""The interface of a dialect: the form fields and the replies of one HTTP transcription API.

`openai.py` and `whisper_cpp.py` are the dialects. A new one is a module like them and a line in
`routes.py`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal
from typing import Protocol as Interface

from app.limits import CueLayout
from app.messages import RawFormat, Request, Segment, Task, Transcript
from app.protocols.http import fields as form_fields
from app.protocols.http import unread_fields
from app.protocols.http.field_table import Field
from app.protocols.http.form import Fields
from app.protocols.model_names import ModelNames

Format = Literal["json", "text", "srt", "verbose_json", "vtt", "tsv"]
SUBTITLES: tuple[Format, ...] = ("srt", "vtt")


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """The options of a request's reply. `segments`, `words` and `timestamps` apply to
    `verbose_json`."""

    dialect: Dialect
    task: Task
    format: Format = "json"
    segments: bool = True
    words: bool = False
    timestamps: bool = True
    stream: bool = False
    temperature: float = 0.0
    detect_only: bool = False
    """True if only the language is asked for."""
    cues: CueLayout | None = None
    """The size of cues from a field that only this dialect has; None without one."""
    ignored: tuple[str, ...] = ()
    """The names of the fields that the node does not read."""
    logprobs: bool = False
    """True if the reply has the probabilities of the tokens."""
    request_id: str = ""


class Dialect(Interface):
    """One API."""

    @property
    def file_field(self) -> str:
        """The name of the form field that holds the audio."""

    @property
    def prompt_field(self) -> str:
        """The name of the field with the words to expect."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that it reads, the audio excepted."""

    def read_options(self, fields: Fields, task: Task) -> ReplyOptions:
        """Read the fields of the reply; `task` is that of the path. Raises `FormError`."""

    def read_language(self, fields: Fields) -> str | None:
        """Read the fields that name the language. Raises `FormError`."""

    def read_samples(self, fields: Fields) -> RawFormat | None:
        """Return the format of the audio if it is samples. Raises `FormError`."""

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        """Return the JSON object of an error."""

    def text(self, transcript: Transcript, options: ReplyOptions) -> str:
        """Return the text, for the format `text` and within JSON."""

    def brief(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        """Return the reply in the format `json`."""

    def extra(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        """Return the fields of `verbose_json` that come last."""

    def language(self, transcript: Transcript, options: ReplyOptions) -> str:
        """Return the language in `verbose_json`; empty if it is not known."""

    def details(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        """Return the fields of `verbose_json` with segments and words."""


def read(
    fields: Fields, dialect: Dialect, request: Request, served: ModelNames
) -> tuple[Request, ReplyOptions]:
    """Return `request` with the form's values, and the options of its reply. Raises `FormError`."""
    ignored = unread_fields.ignored(fields, dialect.fields)
    model = form_fields.model(fields, served)
    options = dialect.read_options(fields, request.task)
    options = replace(options, ignored=ignored, request_id=request.id)
    language = dialect.read_language(fields)
    request = replace(
        request,
        model=model,
        channel_mode=form_fields.channel_mode(fields),
        language=language,
        languages=form_fields.languages(fields, language),
        task=options.task,
        prompt=form_fields.prompt(fields, dialect.prompt_field),
        raw=dialect.read_samples(fields) or request.raw,
        detect_only=options.detect_only,
        word_timestamps=options.words,
        reply="segments" if options.stream else "transcript",
        temperature=options.temperature,
        cues=_cues(fields, options),
        ignored=ignored,
        logprobs=options.logprobs,
    )
    return request, options


def _cues(fields: Fields, options: ReplyOptions) -> CueLayout | None:
    """Return the size of cues: subtitles always have one, other replies with segments only if a
    field gives it."""
    layout = form_fields.cues(fields)
    if options.cues is not None and not form_fields.names_cues(fields):
        return options.cues
    has_segments = options.stream or options.format == "verbose_json"
    wanted = options.format in SUBTITLES or (has_segments and form_fields.names_cues(fields))
    return layout if wanted and layout.width else None


def word_extra(segment: Segment) -> dict[str, Any]:
    """Return the requested fields of a segment and its words that neither API has."""
    extra = {"language": segment.language, "channel": segment.channel}
    return {name: value for name, value in extra.items() if value is not None}


def segment_extra(segment: Segment) -> dict[str, Any]:
    """Return the requested fields of a segment that neither API has."""
    lines = {} if segment.lines is None else {"lines": segment.lines}
    return word_extra(segment) | lines
