"""The fields of a message's JSON header, and the error for each fault.

Each field has one rule in a function of its own; `parse_header` combines them. Pure: bytes in, a
`ParsedHeader` out, `ProtocolError` if the end of the message cannot be known. Other protocols apply
the same limits to the same fields. Loop thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, cast, get_args

from app.limits import prompt_fault
from app.messages import (
    BAD_FIELD,
    BAD_HEADER,
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    MISSING_FIELD,
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

RAW_TYPES = frozenset({"audio/pcm", "audio/l16"})

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TOKEN = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """A header with a known message length: a `request`, or a `failure` whose body is skipped."""

    content_length: int
    id: str | None
    reply: ReplyMode
    keep_alive: bool
    token: str | None = field(default=None, repr=False)
    request: Request | None = None
    failure: Failure | None = None


class _FieldError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)


def parse_header(data: bytes, max_body: int, new_id: Callable[[], str]) -> ParsedHeader:
    """Read and check one header.

    Raises `ProtocolError` if the body's length is unknown or too great: not JSON, not UTF-8, not an
    object, a repeated key, `content-length` missing, not an integer, negative or over `max_body`
    (bytes). Every other fault is returned as `failure`.
    """
    fields = _load_object(data)
    # These four decide how and whether an error is sent. Each is read separately, before all
    # others, so that one invalid field does not change the effect of another.
    reply = _or_default(lambda: _reply(fields), "transcript")
    keep_alive = _or_default(lambda: _keep_alive(fields), False)
    request_id = _or_default(lambda: _request_id(fields, new_id), None)
    token = _or_default(lambda: _token(fields), None)
    try:
        length = _content_length(fields, max_body)
    except _FieldError as error:
        given = request_id if "id" in fields else None
        silent = reply == "none"
        raise ProtocolError(error.failure, given, silent, headed=True, token=token) from None
    try:
        request = _request(fields, length, new_id if request_id is None else lambda: request_id)
    except _FieldError as error:
        return ParsedHeader(length, request_id, reply, keep_alive, token, failure=error.failure)
    return ParsedHeader(length, request.id, reply, keep_alive, token, request)


def _load_object(data: bytes) -> dict[str, Any]:
    def reject_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key occurs twice")
        return fields

    try:
        fields = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reject_duplicates,
            parse_constant=reject_constant,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = f"the header is not a UTF-8 JSON object: {reason[:200]}"
        raise ProtocolError(Failure(BAD_HEADER, message)) from None
    if not isinstance(fields, dict):
        raise ProtocolError(Failure(BAD_HEADER, "the header is JSON but not an object"))
    return fields


def _content_length(fields: dict[str, Any], max_body: int) -> int:
    if "content-length" not in fields:
        message = "content-length is missing; send the number of bytes of the body"
        raise _FieldError(MISSING_FIELD, message)
    length = fields["content-length"]
    if type(length) is not int or length < 0:
        message = "content-length must be a whole number of bytes, 0 or more"
        raise _FieldError(BAD_HEADER, message)
    if length > max_body:
        message = f"content-length is over the limit of {max_body} bytes; send less audio"
        raise _FieldError(TOO_LARGE, message)
    return length


def _or_default(read: Callable[[], Any], default: Any) -> Any:
    try:
        return read()
    except _FieldError:
        return default


def _request(fields: dict[str, Any], length: int, new_id: Callable[[], str]) -> Request:
    byteorder = cast(Literal["little", "big"], _choice(fields, "byteorder", ("little", "big")))
    content_type = _string(fields, "content-type").partition(";")[0].strip().lower()
    encoding = _string(fields, "content-encoding")
    raw = _raw_format(fields, encoding, byteorder) if content_type in RAW_TYPES else None
    return Request(
        id=_request_id(fields, new_id),
        content_length=length,
        raw=raw,
        channel_mode=cast(
            ChannelMode, _choice(fields, "channel-mode", get_args(ChannelMode), "auto")
        ),
        language=(language := _language(fields)),
        languages=_languages(fields, language),
        task=cast(Task, _choice(fields, "task", get_args(Task), "transcribe")),
        prompt=_prompt(fields),
        word_timestamps=_boolean(fields, "word-timestamps"),
        reply=_reply(fields),
        keep_alive=_keep_alive(fields),
        token=_token(fields),
    )


def _request_id(fields: dict[str, Any], new_id: Callable[[], str]) -> str:
    if "id" not in fields:
        return new_id()
    value = fields["id"]
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _FieldError(BAD_FIELD, "id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return value


def _reply(fields: dict[str, Any]) -> ReplyMode:
    return cast(ReplyMode, _choice(fields, "reply", get_args(ReplyMode), "transcript"))


def _keep_alive(fields: dict[str, Any]) -> bool:
    return _choice(fields, "connection", ("close", "keep-alive"), "close") == "keep-alive"


def _token(fields: dict[str, Any]) -> str | None:
    if "token" not in fields:
        return None
    value = fields["token"]
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _FieldError(
            BAD_FIELD, "token must be 1 to 256 printable ASCII characters without spaces"
        )
    return value


def _language(fields: dict[str, Any]) -> str | None:
    if "language" not in fields:
        return None
    value = fields["language"]
    code = language_code(value) if isinstance(value, str) else None
    if code is None:
        raise _FieldError(BAD_FIELD, f"language must be {WANTED}")
    return code


def _languages(fields: dict[str, Any], language: str | None) -> tuple[str, ...]:
    if "languages" not in fields:
        return ()
    values = fields["languages"]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _FieldError(BAD_FIELD, "languages must be an array of codes such as en")
    if any("," in value for value in values):
        raise _FieldError(BAD_FIELD, "languages must have one code per string, without commas")
    try:
        codes = language_codes(values)
    except LanguageError as error:
        raise _FieldError(BAD_FIELD, f"languages {error}") from None
    if reason := contradiction(language, codes):
        raise _FieldError(BAD_FIELD, f"languages {reason}")
    return codes


def _prompt(fields: dict[str, Any]) -> str:
    if "prompt" not in fields:
        return ""
    prompt = _string(fields, "prompt")
    if fault := prompt_fault(prompt):
        raise _FieldError(BAD_FIELD, f"prompt {fault}")
    return prompt


def _raw_format(
    fields: dict[str, Any], encoding: str, byteorder: Literal["little", "big"]
) -> RawFormat:
    encodings = get_args(SampleEncoding)
    if encoding not in encodings:
        wanted = ", ".join(encodings)
        raise _FieldError(BAD_FIELD, f"content-encoding of raw audio must be one of {wanted}")
    return RawFormat(
        encoding=cast(SampleEncoding, encoding),
        sample_rate=_integer(fields, "sample-rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE),
        channels=_integer(fields, "channels", 1, MAX_CHANNELS),
        byteorder=byteorder,
    )


def _present(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise _FieldError(MISSING_FIELD, f"{name} is missing")
    return fields[name]


def _string(fields: dict[str, Any], name: str) -> str:
    value = _present(fields, name)
    if not isinstance(value, str):
        raise _FieldError(BAD_FIELD, f"{name} must be a string")
    return value


def _boolean(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise _FieldError(BAD_FIELD, f"{name} must be true or false")
    return value


def _integer(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = _present(fields, name)
    if type(value) is not int or not least <= value <= most:
        raise _FieldError(BAD_FIELD, f"{name} must be a whole number from {least} to {most}")
    return value


def _choice(
    fields: dict[str, Any], name: str, choices: tuple[str, ...], default: str | None = None
) -> str:
    if default is not None and name not in fields:
        return default
    value = _present(fields, name)
    if value not in choices:
        raise _FieldError(BAD_FIELD, f"{name} must be one of {', '.join(choices)}")
    return cast(str, value)
