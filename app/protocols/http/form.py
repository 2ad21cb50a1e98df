"""A multipart/form-data body: the file's bytes are handed on, its other fields kept.

`Form` stands around python-multipart's push parser and adds what that leaves open: which part is
the file, how large and how many the other parts may be, and a word for every fault. Sans-IO; the
file is never collected here. Loop thread.
"""

from __future__ import annotations

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.limits import MAX_PROMPT_BYTES
from app.messages import (
    BAD_FIELD,
    BAD_HEADER,
    INCOMPLETE,
    MISSING_FIELD,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    Failure,
)

FILE = "file"
"""The name of the part that holds the audio, in OpenAI's API and in whisper.cpp's server."""

MAX_PARTS = 100
"""whisper.cpp's server knows 37 fields, OpenAI's API about 20, some of them lists."""

MAX_FIELD_BYTES = MAX_PROMPT_BYTES
"""Most bytes of a field that is not the file. No other field is as long as a prompt."""

MAX_BOUNDARY_BYTES = 70
"""RFC 2046, section 5.1.1."""

Fields = dict[str, list[str]]
"""Values by name, in the order of arrival; a form may have one name several times."""


class FormError(Exception):
    """The form cannot be served; nothing after this place was read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)


def boundary_of(content_type: str | None) -> bytes:
    """The boundary that a `Content-Type` names.

    Raises `FormError`: `unsupported_media_type` where it is another type, `bad_header` where there
    is no usable boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        message = "the body must be multipart/form-data, with the audio in its field file"
        raise FormError(UNSUPPORTED_MEDIA_TYPE, message)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        message = f"Content-Type names no boundary of 1 to {MAX_BOUNDARY_BYTES} characters"
        raise FormError(BAD_HEADER, message)
    return boundary


class Form:
    """One body as it comes in."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._delimiter = b"\r\n--" + boundary
        self._delimiters = 0
        self._parts = 0
        self._name = ""
        self._header = [bytearray(), bytearray()]
        self._headers: dict[bytes, bytes] = {}
        self._value = bytearray()
        self._pieces: list[memoryview] = []
        self._has_file = False
        self._ended = False
        self._fields: Fields = {}

    def feed(self, data: bytes) -> list[memoryview]:
        """Take the next bytes of the body; what of them belongs to the file, in order. Raises
        `FormError`."""
        # A delimiter that does not end a part costs the parser microseconds, so a body full of them
        # seconds per MiB. Clients choose boundaries that do not occur in their files.
        self._delimiters += data.count(self._delimiter)
        if self._delimiters > MAX_PARTS + 1:
            raise _too_many()
        try:
            self._parser.write(data)
        except FormParserError:
            # Its message may quote the body.
            raise FormError(BAD_HEADER, "the form is not valid multipart") from None
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> Fields:
        """The fields, after the last byte of the body. Raises `FormError` where it broke off or
        held no file."""
        if not self._ended:
            raise FormError(INCOMPLETE, "the form ended before its closing boundary")
        if not self._has_file:
            raise FormError(MISSING_FIELD, f"{FILE} is missing")
        return self._fields

    # The parser's callbacks.

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _too_many()
        self._headers = {}
        self._value = bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = [bytearray(), bytearray()]

    def _end_headers(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition.decode("latin-1"))
        if kind.lower() != b"form-data" or b"name" not in options:
            raise FormError(BAD_HEADER, "a part of the form has no name")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            message = "Content-Transfer-Encoding of a part must be binary: RFC 7578 has no other"
            raise FormError(BAD_HEADER, message)
        self._name = _decoded(options[b"name"], "the name of a field")
        if self._name == FILE:
            if self._has_file:
                raise FormError(BAD_FIELD, f"{FILE} is there twice; send one")
            self._has_file = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._pieces.append(memoryview(data)[start:end])
            return
        self._value += memoryview(data)[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            shown = self._name[:40]
            raise FormError(BAD_FIELD, f"{shown} has more than {MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._name != FILE:
            values = self._fields.setdefault(self._name, [])
            values.append(_decoded(self._value, self._name[:40]))

    def _end(self) -> None:
        self._ended = True


def _too_many() -> FormError:
    return FormError(TOO_LARGE, f"the form has more than {MAX_PARTS} fields")


def _decoded(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormError(BAD_FIELD, f"{what} is not UTF-8") from None
