"""A multipart/form-data body: the file's bytes pass through, the other fields are collected.

`Form` reads the parts of `multipart.py`. It chooses the file's part, limits the size and number of
the others, and has an error for every fault. Sans-IO. Loop thread.
"""

from __future__ import annotations

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
from app.protocols.http.multipart import Multipart, MultipartError, PartEnd, PartHead
from app.protocols.http.parameters import parameters

FILE = "file"
"""The usual name of the part that holds the audio."""

MAX_PARTS = 100
"""Most parts of a form. whisper.cpp's server has 37 fields, OpenAI's API about 20, some of them
lists."""

MAX_FIELD_BYTES = MAX_PROMPT_BYTES
"""Most bytes of a field other than the file; the longest such field is the prompt."""

MAX_BOUNDARY_BYTES = 70
"""Most characters of a boundary: RFC 2046, section 5.1.1."""

_CHARSETS = {"utf-8": "utf-8", "us-ascii": "utf-8", "iso-8859-1": "latin-1"}

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
    kind, options = parameters(content_type or "")
    if kind != "multipart/form-data":
        message = "the body must be multipart/form-data, with the audio in the field file"
        raise FormError(UNSUPPORTED_MEDIA_TYPE, message)
    boundary = options.get("boundary", "").encode("latin-1")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        message = f"Content-Type must have a boundary of 1 to {MAX_BOUNDARY_BYTES} characters"
        raise FormError(BAD_HEADER, message)
    return boundary


class Form:
    """The parser of one body, whose audio is in the field `file`."""

    def __init__(self, boundary: bytes, file: str = FILE) -> None:
        self._file = file
        self._multipart = Multipart(boundary)
        self._delimiter = b"\r\n--" + boundary
        self._delimiters = 0
        self._parts = 0
        self._name = ""
        self._charset = "utf-8"
        self._value = bytearray()
        self._has_data = False
        self._has_file = False
        self._other_file: str | None = None
        """The name of a part that holds a file as well."""
        self._fields: Fields = {}

    def feed(self, data: bytes) -> list[memoryview]:
        """Parse the next bytes of the body; return those that belong to the file, in order. Raises
        `FormError`."""
        # A delimiter that does not end a part costs the parser microseconds, so a body of
        # delimiters would cost seconds per MiB. A client's boundary does not occur in its file.
        self._delimiters += data.count(self._delimiter)
        if self._delimiters > MAX_PARTS + 1:
            raise _too_many()
        self._has_data = self._has_data or bool(data)
        pieces = []
        try:
            for piece in self._multipart.feed(data):
                if isinstance(piece, PartHead):
                    self._begin_part(piece.fields)
                elif isinstance(piece, PartEnd):
                    self._end_part()
                elif self._name == self._file:
                    pieces.append(piece.data)
                else:
                    self._collect(piece.data)
        except MultipartError as error:
            raise FormError(BAD_HEADER, f"the form is not valid multipart: {error}") from None
        return pieces

    def finish(self) -> Fields:
        """Return the fields, after the last byte of the body. Raises `FormError` if the form is
        incomplete or has no file."""
        if self._has_data and not self._multipart.begun:
            message = "the boundary of the Content-Type does not occur in the body; send the same"
            raise FormError(BAD_HEADER, message)
        if not self._multipart.ended:
            raise FormError(INCOMPLETE, "the form ended before its closing boundary; send it whole")
        if not self._has_file:
            raise self._without_file()
        return self._fields

    def _begin_part(self, fields: dict[bytes, bytes]) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _too_many()
        self._value = bytearray()
        disposition = fields.get(b"content-disposition", b"")
        kind, options = parameters(disposition.decode("latin-1"))
        if kind != "form-data" or "name" not in options:
            raise FormError(BAD_HEADER, "a part of the form has no name in its Content-Disposition")
        encoding = fields.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            message = "Content-Transfer-Encoding of a part must be binary (RFC 7578)"
            raise FormError(BAD_HEADER, message)
        self._name = _decoded(options["name"].encode("latin-1"), "the name of a field")
        self._charset = _charset(fields.get(b"content-type", b""), self._name)
        if self._name == self._file:
            if self._has_file:
                raise FormError(BAD_FIELD, f"{self._file} occurs twice; send one")
            self._has_file = True
        elif "filename" in options:
            self._other_file = self._name

    def _collect(self, data: memoryview) -> None:
        self._value += data
        if len(self._value) > MAX_FIELD_BYTES:
            if self._name == self._other_file and not self._has_file:
                raise self._without_file()
            shown = self._name[:40]
            raise FormError(BAD_FIELD, f"{shown} has more than {MAX_FIELD_BYTES} bytes; send less")

    def _end_part(self) -> None:
        if self._name != self._file:
            values = self._fields.setdefault(self._name, [])
            values.append(_decoded(self._value, self._name[:40], self._charset))

    def _without_file(self) -> FormError:
        message = f"{self._file} is missing; send the audio in the field {self._file}"
        if self._other_file is not None:
            message += f", not in {self._other_file[:40]}"
        return FormError(MISSING_FIELD, message)


def _too_many() -> FormError:
    return FormError(TOO_LARGE, f"the form has more than {MAX_PARTS} fields; send fewer")


def _charset(content_type: bytes, name: str) -> str:
    """Return the encoding of a text field, which its part may name (RFC 7578, section 4.5)."""
    kind, options = parameters(content_type.decode("latin-1"))
    charset = options.get("charset", "utf-8").lower()
    if kind not in ("", "text/plain"):
        return "utf-8"
    if charset not in _CHARSETS:
        raise FormError(BAD_FIELD, f"{name[:40]} has an unknown charset; send it in UTF-8")
    return _CHARSETS[charset]


def _decoded(data: bytes | bytearray, what: str, charset: str = "utf-8") -> str:
    try:
        return data.decode(charset)
    except UnicodeDecodeError:
        raise FormError(BAD_FIELD, f"{what} is not UTF-8") from None
