"""A multipart/form-data body: the file's bytes pass through, the other fields are collected.

`Form` wraps python-multipart's push parser. It adds the choice of the file's part, limits for the
size and number of the other parts, and an error for every fault. Sans-IO. Loop thread.
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
from app.protocols.http.answer import Headers

FILE = "file"
"""The usual name of the part that holds the audio."""

MAX_PARTS = 100
"""Most parts of a form. whisper.cpp's server has 37 fields, OpenAI's API about 20, some of them
lists."""

MAX_FIELD_BYTES = MAX_PROMPT_BYTES
"""Most bytes of a field other than the file; the longest such field is the prompt."""

MAX_BOUNDARY_BYTES = 70
"""Most characters of a boundary: RFC 2046, section 5.1.1."""

Fields = dict[str, list[str]]
"""Values by field name, in the order of the form, which may repeat a name."""


class FormError(Exception):
    """The form cannot be served; parsing stopped at the fault. `more` are headers of the answer."""

    def __init__(self, code: str, message: str, more: Headers = ()) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)
        self.more = more


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary in a `Content-Type`.

    Raises `FormError`: `unsupported_media_type` for another type, `bad_header` without a valid
    boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        message = "the body must be multipart/form-data, with the audio in the field file"
        raise FormError(UNSUPPORTED_MEDIA_TYPE, message)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        message = f"Content-Type must have a boundary of 1 to {MAX_BOUNDARY_BYTES} characters"
        raise FormError(BAD_HEADER, message)
    return boundary


class Form:
    """The parser of one body, whose audio is in the field `file`."""

    def __init__(self, boundary: bytes, file: str = FILE) -> None:
        self._file = file
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
        self._other_file: str | None = None
        """The name of a part that holds a file as well."""
        self._ended = False
        self._fields: Fields = {}

    def feed(self, data: bytes) -> list[memoryview]:
        """Parse the next bytes of the body; return those that belong to the file, in order. Raises
        `FormError`."""
        # A delimiter that does not end a part costs the parser microseconds, so a body of
        # delimiters would cost seconds per MiB. A client's boundary does not occur in its file.
        self._delimiters += data.count(self._delimiter)
        if self._delimiters > MAX_PARTS + 1:
            raise _too_many()
        try:
            self._parser.write(data)
        except FormParserError:
            # The parser's message may quote the body.
            raise FormError(BAD_HEADER, "the form is not valid multipart") from None
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> Fields:
        """Return the fields, after the last byte of the body. Raises `FormError` if the form is
        incomplete or has no file."""
        if not self._ended:
            raise FormError(INCOMPLETE, "the form ended before its closing boundary; send it whole")
        if not self._has_file:
            raise self._without_file()
        return self._fields

    # Callbacks of the parser.

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
            raise FormError(BAD_HEADER, "a part of the form has no name in its Content-Disposition")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            message = "Content-Transfer-Encoding of a part must be binary (RFC 7578)"
            raise FormError(BAD_HEADER, message)
        self._name = _decoded(options[b"name"], "the name of a field")
        if self._name == self._file:
            if self._has_file:
                raise FormError(BAD_FIELD, f"{self._file} occurs twice; send one")
            self._has_file = True
        elif b"filename" in options:
            self._other_file = self._name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file:
            self._pieces.append(memoryview(data)[start:end])
            return
        self._value += memoryview(data)[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            if self._name == self._other_file and not self._has_file:
                raise self._without_file()
            shown = self._name[:40]
            raise FormError(BAD_FIELD, f"{shown} has more than {MAX_FIELD_BYTES} bytes; send less")

    def _end_part(self) -> None:
        if self._name != self._file:
            values = self._fields.setdefault(self._name, [])
            values.append(_decoded(self._value, self._name[:40]))

    def _end(self) -> None:
        self._ended = True

    def _without_file(self) -> FormError:
        message = f"{self._file} is missing; send the audio in the field {self._file}"
        if self._other_file is not None:
            message += f", not in {self._other_file[:40]}"
        return FormError(MISSING_FIELD, message)


def _too_many() -> FormError:
    return FormError(TOO_LARGE, f"the form has more than {MAX_PARTS} fields; send fewer")


def _decoded(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormError(BAD_FIELD, f"{what} is not UTF-8") from None
