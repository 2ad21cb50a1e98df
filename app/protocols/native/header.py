"""The fields of a message's JSON header, and the error for each fault.

Each field has one rule in a function of its own; `parse_header` combines them. Pure: bytes in, a
`ParsedHeader` out, `ProtocolError` if the end of the message cannot be known. Other protocols apply
the same limits to the same fields. Loop thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from app.audio.raw_format import G722_RATE, ONE_CHANNEL
from app.limits import (
    MAX_CHANNELS,
    MAX_CUE_SECONDS,
    MAX_LINE_COUNT,
    MAX_LINE_WIDTH,
    MAX_SAMPLE_RATE,
    MIN_CUE_SECONDS,
    MIN_SAMPLE_RATE,
    CueLayout,
    prompt_fault,
)
from app.live import LiveOptions
from app.messages import (
    BAD_FIELD,
    BAD_HEADER,
    MISSING_FIELD,
    SAMPLE_BYTES,
    TOO_LARGE,
    ChannelMode,
    Failure,
    RawFormat,
    ReplyMode,
    Request,
    SampleEncoding,
    Task,
)
from app.protocols.base import ProtocolError
from app.protocols.languages import (
    WANTED,
    LanguageError,
    contradiction,
    language_code,
    language_codes,
)
from app.protocols.native.json_fields import (
    FieldError,
    boolean,
    choice,
    integer,
    load_object,
    number,
    string,
)

RAW_TYPES = frozenset({"audio/pcm", "audio/l16"})

_CUE_FIELDS = frozenset({"max-line-width", "max-line-count", "max-cue-seconds"})

LIVE_REPLIES: tuple[ReplyMode, ...] = ("transcript", "segments")
"""The replies to live audio. The others promise more than a stream that is never stored can."""

_PARTIALS = "partials"
"""The value of `reply` for segments, and before them the text of the open utterance."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TOKEN = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """A header of a message whose end can be found: a `request`, or a `failure` whose body is
    skipped. `content_length` is None for live audio, which comes in frames."""

    content_length: int | None
    id: str | None
    reply: ReplyMode
    keep_alive: bool
    token: str | None = field(default=None, repr=False)
    request: Request | None = None
    failure: Failure | None = None


def parse_header(data: bytes, max_body: int, new_id: Callable[[], str]) -> ParsedHeader:
    """Read and check one header.

    Raises `ProtocolError` if the body's length is unknown or too great: not JSON, not UTF-8, not an
    object, a repeated key, `live` not a boolean, or `content-length` missing, not an integer,
    negative, over `max_body` (bytes) or beside `live`. Every other fault is returned as `failure`.
    """
    fields = load_object(data)
    # These four decide how and whether an error is sent. Each is read separately, before all
    # others, so that one invalid field does not change the effect of another.
    reply = _or_default(lambda: _reply(fields), "transcript")
    keep_alive = _or_default(lambda: _keep_alive(fields), False)
    request_id = _or_default(lambda: _request_id(fields, new_id), None)
    token = _or_default(lambda: _token(fields), None)
    try:
        length = None if _live(fields) else _content_length(fields, max_body)
    except FieldError as error:
        given = request_id if "id" in fields else None
        silent = reply == "none"
        raise ProtocolError(error.failure, given, silent, headed=True, token=token) from None
    try:
        request = _request(fields, length, new_id if request_id is None else lambda: request_id)
    except FieldError as error:
        return ParsedHeader(length, request_id, reply, keep_alive, token, failure=error.failure)
    return ParsedHeader(length, request.id, reply, keep_alive, token, request)


def _live(fields: dict[str, Any]) -> bool:
    live = boolean(fields, "live")
    if live and "content-length" in fields:
        message = "live audio comes in frames without content-length; omit one of the two fields"
        raise FieldError(BAD_FIELD, message)
    return live


def _content_length(fields: dict[str, Any], max_body: int) -> int:
    if "content-length" not in fields:
        message = "content-length is missing; send the number of bytes of the body"
        raise FieldError(MISSING_FIELD, message)
    length = fields["content-length"]
    if type(length) is not int or length < 0:
        message = "content-length must be a whole number of bytes, 0 or more"
        raise FieldError(BAD_HEADER, message)
    if length > max_body:
        message = f"content-length is over the limit of {max_body} bytes; send less audio"
        raise FieldError(TOO_LARGE, message)
    return length


def _or_default(read: Callable[[], Any], default: Any) -> Any:
    try:
        return read()
    except FieldError:
        return default


def _request(fields: dict[str, Any], length: int | None, new_id: Callable[[], str]) -> Request:
    byteorder = cast(Literal["little", "big"], choice(fields, "byteorder", ("little", "big")))
    content_type = string(fields, "content-type").partition(";")[0].strip().lower()
    encoding = string(fields, "content-encoding")
    raw = _raw_format(fields, encoding, byteorder) if content_type in RAW_TYPES else None
    channel_mode = cast(ChannelMode, choice(fields, "channel-mode", get_args(ChannelMode), "auto"))
    return Request(
        id=_request_id(fields, new_id),
        content_length=length,
        raw=raw,
        channel_mode=channel_mode,
        language=(language := _language(fields)),
        languages=_languages(fields, language),
        task=cast(Task, choice(fields, "task", get_args(Task), "transcribe")),
        prompt=_prompt(fields),
        word_timestamps=boolean(fields, "word-timestamps"),
        cues=_cues(fields),
        reply=(reply := _reply(fields)),
        keep_alive=_keep_alive(fields),
        token=_token(fields),
        live=_live_options(fields, raw, channel_mode, reply) if length is None else None,
    )


def _live_options(
    fields: dict[str, Any], raw: RawFormat | None, channel_mode: ChannelMode, reply: ReplyMode
) -> LiveOptions:
    """Return the options of live audio, after a check of the fields that it restricts."""
    if raw is None:
        raise FieldError(BAD_FIELD, "content-type of live audio must be audio/pcm: raw samples")
    if raw.encoding not in SAMPLE_BYTES:
        wanted = ", ".join(SAMPLE_BYTES)
        raise FieldError(BAD_FIELD, f"content-encoding of live audio must be one of {wanted}")
    if channel_mode == "split":
        raise FieldError(BAD_FIELD, "channel-mode of live audio must be auto")
    if reply not in LIVE_REPLIES:
        wanted = " or ".join((*LIVE_REPLIES, _PARTIALS))
        raise FieldError(BAD_FIELD, f"reply to live audio must be {wanted}: it is never stored")
    return LiveOptions(partials=fields.get("reply") == _PARTIALS)


def _request_id(fields: dict[str, Any], new_id: Callable[[], str]) -> str:
    if "id" not in fields:
        return new_id()
    value = fields["id"]
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise FieldError(BAD_FIELD, "id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return value


def _reply(fields: dict[str, Any]) -> ReplyMode:
    modes = get_args(ReplyMode)
    value = choice(fields, "reply", (*modes, _PARTIALS), "transcript")
    if value != _PARTIALS:
        return cast(ReplyMode, value)
    if fields.get("live") is not True:
        raise FieldError(BAD_FIELD, "reply partials is for live audio; add live, or use segments")
    return "segments"


def _keep_alive(fields: dict[str, Any]) -> bool:
    return choice(fields, "connection", ("close", "keep-alive"), "close") == "keep-alive"


def _token(fields: dict[str, Any]) -> str | None:
    if "token" not in fields:
        return None
    value = fields["token"]
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise FieldError(
            BAD_FIELD, "token must be 1 to 256 printable ASCII characters without spaces"
        )
    return value


def _language(fields: dict[str, Any]) -> str | None:
    if "language" not in fields:
        return None
    value = fields["language"]
    code = language_code(value) if isinstance(value, str) else None
    if code is None:
        raise FieldError(BAD_FIELD, f"language must be {WANTED}")
    return code


def _languages(fields: dict[str, Any], language: str | None) -> tuple[str, ...]:
    if "languages" not in fields:
        return ()
    values = fields["languages"]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FieldError(BAD_FIELD, "languages must be an array of codes such as en")
    if any("," in value for value in values):
        raise FieldError(BAD_FIELD, "languages must have one code per string, without commas")
    try:
        codes = language_codes(values)
    except LanguageError as error:
        raise FieldError(BAD_FIELD, f"languages {error}") from None
    if reason := contradiction(language, codes):
        raise FieldError(BAD_FIELD, f"languages {reason}")
    return codes


def _prompt(fields: dict[str, Any]) -> str:
    if "prompt" not in fields:
        return ""
    prompt = string(fields, "prompt")
    if fault := prompt_fault(prompt):
        raise FieldError(BAD_FIELD, f"prompt {fault}")
    return prompt


def _cues(fields: dict[str, Any]) -> CueLayout | None:
    """Return the size of cues; None if no field gives one, or if the width is 0."""
    if not fields.keys() & _CUE_FIELDS:
        return None
    default = CueLayout()
    layout = CueLayout(
        integer({"max-line-width": default.width, **fields}, "max-line-width", 0, MAX_LINE_WIDTH),
        integer({"max-line-count": default.lines, **fields}, "max-line-count", 1, MAX_LINE_COUNT),
        number(fields, "max-cue-seconds", default.seconds, MIN_CUE_SECONDS, MAX_CUE_SECONDS),
    )
    return layout if layout.width else None


def _raw_format(
    fields: dict[str, Any], encoding: str, byteorder: Literal["little", "big"]
) -> RawFormat:
    encodings = get_args(SampleEncoding)
    if encoding not in encodings:
        wanted = ", ".join(encodings)
        raise FieldError(BAD_FIELD, f"content-encoding of raw audio must be one of {wanted}")
    raw = RawFormat(
        encoding=cast(SampleEncoding, encoding),
        sample_rate=integer(fields, "sample-rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE),
        channels=integer(fields, "channels", 1, MAX_CHANNELS),
        byteorder=byteorder,
    )
    if encoding in ONE_CHANNEL and raw.channels != 1:
        raise FieldError(BAD_FIELD, f"channels of {encoding} must be 1")
    if encoding == "g722" and raw.sample_rate != G722_RATE:
        message = f"sample-rate of g722 must be {G722_RATE}; RTP states 8000 for the same audio"
        raise FieldError(BAD_FIELD, message)
    return raw
