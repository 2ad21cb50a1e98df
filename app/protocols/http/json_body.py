"""A JSON object with the audio in base64 and the fields beside it.

    {"file": "<base64, or a data: URL>", "language": "en", ...}
    {"input_audio": {"data": "<base64>", "format": "wav"}, "language": "en", ...}

The second form is that of OpenRouter's clients and of Open WebUI. The audio is decoded as it
arrives and never collected; only the rest of the object is. Sans-IO. Loop thread.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from enum import Enum, auto

from app.messages import BAD_FIELD, BAD_HEADER, INCOMPLETE, MISSING_FIELD, TOO_LARGE
from app.protocols.http.form import FILE, Fields, FormError

MAX_JSON_BYTES = 32 * 1024 * 1024
"""Most bytes of such a body: 24 MiB of audio. Larger audio belongs into a form."""

_MAX_REST = 65_536
"""Most bytes beside the audio; the longest field is the prompt, with 16 KiB."""

_URL_BYTES = 256
"""Most bytes before the comma of a data: URL."""

_SPACE = b" \t\r\n"
_NESTED = "input_audio"
"""The object that may hold the audio as its `data`."""

_MAX_DEPTH = 4
"""Most levels of lists and objects in a field."""

_OUTSIDE = re.compile(rb'["{}\[\]:,]')
_IN_STRING = re.compile(rb'["\\]')

_ESCAPED = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?$")
_LETTERS = {b"/": b"/", b"n": b"", b"r": b"", b"t": b""}
"""The meaning of escapes by one character: nothing for white space, which base64 may have. The
escapes that are not here stand for characters that base64 has not."""


class _Place(Enum):
    OUTSIDE = auto()
    STRING = auto()
    ESCAPE = auto()
    AUDIO = auto()


class JsonBody:
    """The parser of one body. Methods raise `FormError`. The audio is also found as `file`, and
    `length` is that of the body, if it is known."""

    def __init__(self, file: str = FILE, length: int | None = None) -> None:
        self._check_size(length or 0)
        self._names = (file, FILE, _NESTED)
        self._audio_at = (
            *([f'"{name}"'.encode()] for name in (file, FILE)),
            [f'"{_NESTED}"'.encode(), b'"data"'],
        )
        """Keys from the outermost object to the audio."""
        self._size = 0
        self._rest = bytearray()
        """The object with an empty text for the audio."""
        self._place = _Place.OUTSIDE
        self._depth = 0
        self._string_at = 0
        """Where the last string begins in the rest."""
        self._keys: list[bytes | None] = [None, None]
        """The keys whose values are being read, in the object and in an object within it."""
        self._head: bytearray | None = None
        """The beginning of the audio, until it is known whether it is a data: URL."""
        self._left = b""
        """Base64 digits that do not make whole bytes yet."""
        self._escape = b""
        """A backslash whose letter has not arrived."""
        self._padded = False
        self._has_file = False

    def feed(self, data: bytes) -> list[memoryview]:
        """Parse the next bytes of the body; return the audio in them."""
        self._size += len(data)
        self._check_size(self._size)
        pieces = []
        at = 0
        while at < len(data):
            if self._place is _Place.AUDIO:
                end = data.find(b'"', at)
                pieces.append(self._audio(data[at:] if end < 0 else data[at:end], last=end >= 0))
                at = len(data) if end < 0 else end
                if end >= 0:
                    self._place = _Place.STRING
            else:
                at = self._skip(data, at)
        return [memoryview(piece) for piece in pieces if piece]

    def finish(self) -> Fields:
        """Return the fields beside the audio, after the last byte of the body."""
        try:
            fields = json.loads(self._rest.decode("utf-8"))
        except (ValueError, RecursionError):
            if self._place is not _Place.OUTSIDE or self._depth:
                message = "the JSON object ended before its last brace; send it whole"
                raise FormError(INCOMPLETE, message) from None
            raise FormError(BAD_HEADER, "the body is not a JSON object in UTF-8") from None
        if not isinstance(fields, dict):
            raise FormError(BAD_HEADER, "the body is JSON but not an object")
        if not self._has_file:
            message = f"{FILE} is missing; send the audio in base64 as the text {FILE}"
            raise FormError(MISSING_FIELD, message)
        found: Fields = {}
        for name, value in fields.items():
            if name not in self._names or (name == _NESTED and not isinstance(value, dict)):
                _add(found, name, value)
        return found

    def _check_size(self, size: int) -> None:
        if size > MAX_JSON_BYTES:
            message = f"a JSON body has at most {MAX_JSON_BYTES} bytes; send a form instead"
            raise FormError(TOO_LARGE, message)

    def _skip(self, data: bytes, at: int) -> int:
        """Read up to the next character that matters, and return the position after it."""
        if self._place is _Place.ESCAPE:
            self._keep(data[at : at + 1])
            self._place = _Place.STRING
            return at + 1
        pattern = _OUTSIDE if self._place is _Place.OUTSIDE else _IN_STRING
        found = pattern.search(data, at)
        end = len(data) if found is None else found.end()
        self._keep(data[at:end])
        if found is not None:
            self._react(found[0])
        return end

    def _react(self, mark: bytes) -> None:
        if self._place is _Place.STRING:
            if mark == b"\\":
                self._place = _Place.ESCAPE
                return
            self._place = _Place.OUTSIDE
            if self._depth in (1, 2) and self._keys[self._depth - 1] is None:
                self._keys[self._depth - 1] = bytes(self._rest[self._string_at :])
        elif mark == b'"':
            self._string_at = len(self._rest) - 1
            is_value = self._depth in (1, 2) and self._follows_colon()
            self._place = _Place.STRING
            if is_value and self._keys[: self._depth] in self._audio_at:
                self._begin_audio()
        elif mark in b"{[":
            self._depth += 1
            if self._depth == 2:
                self._keys[1] = None
        elif mark in b"}]":
            self._depth -= 1
        elif mark == b"," and self._depth in (1, 2):
            self._keys[self._depth - 1] = None

    def _follows_colon(self) -> bool:
        at = len(self._rest) - 2
        while at >= 0 and self._rest[at] in _SPACE:
            at -= 1
        return at >= 0 and self._rest[at : at + 1] == b":"

    def _begin_audio(self) -> None:
        if self._has_file:
            raise FormError(BAD_FIELD, f"{FILE} occurs twice; send one")
        self._has_file = True
        self._head = bytearray()
        self._place = _Place.AUDIO

    def _audio(self, digits: bytes, last: bool) -> bytes:
        """Return the bytes of the next digits of the audio."""
        digits = self._unescaped(digits, last)
        if self._head is not None:
            self._head += digits
            if self._head[:5].lower() != b"data:"[: len(self._head)] or last or b"," in self._head:
                digits, self._head = self._without_url(bytes(self._head)), None
            elif len(self._head) > _URL_BYTES:
                raise FormError(BAD_FIELD, f"{FILE} is a data: URL without its comma")
            else:
                return b""
        digits = self._left + digits.translate(None, _SPACE)
        whole = len(digits) if last else len(digits) // 4 * 4
        self._left = digits[whole:]
        return self._decoded(digits[:whole])

    def _unescaped(self, digits: bytes, last: bool) -> bytes:
        """Return digits as they are without JSON's escapes. Libraries escape line breaks, slashes,
        and as `\\u002B` or `\\u003d` also signs of base64."""
        digits, self._escape = self._escape + digits, b""
        if b"\\" not in digits:
            return digits
        if cut := _CUT_ESCAPE.search(digits[-6:]):
            if last:
                raise FormError(BAD_FIELD, f"{FILE} is not valid base64")
            self._escape = cut[0]
            digits = digits[: -len(cut[0])]
        return _ESCAPED.sub(_unescape, digits)

    def _without_url(self, head: bytes) -> bytes:
        if head[:5].lower() != b"data:":
            return head
        about, comma, digits = head.partition(b",")
        if not comma or not about.lower().replace(b" ", b"").endswith(b";base64"):
            raise FormError(BAD_FIELD, f"{FILE} must be base64, also in a data: URL")
        return digits

    def _decoded(self, digits: bytes) -> bytes:
        if not digits:
            return b""
        if self._padded:
            raise FormError(BAD_FIELD, f"{FILE} is not valid base64: digits follow its end")
        self._padded = digits.endswith(b"=")
        # Some encoders write the alphabet for URLs, or leave the padding out.
        digits = digits.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(digits) % 4)
        try:
            return base64.b64decode(digits, validate=True)
        except (binascii.Error, ValueError):
            raise FormError(BAD_FIELD, f"{FILE} is not valid base64") from None

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > _MAX_REST and not self._has_file:
            message = f"{FILE} is missing before {_MAX_REST} bytes of other fields; send the audio"
            raise FormError(MISSING_FIELD, f"{message} in base64 as the text {FILE}")
        if len(self._rest) > _MAX_REST:
            raise FormError(BAD_FIELD, f"the fields beside {FILE} have more than {_MAX_REST} bytes")


def _unescape(match: re.Match[bytes]) -> bytes:
    """Return the character of an escape; a backslash, which is no digit, for one out of place."""
    if match[1] is not None:
        code = int(match[1], 16)
        return bytes((code,)) if code < 128 else b"\\"
    return _LETTERS.get(match[2], b"\\")


def _add(fields: Fields, name: str, value: object, depth: int = 0) -> None:
    """Add a JSON value as a form has it: a list repeats its field, an object has fields `x[y]`."""
    if depth > _MAX_DEPTH:
        raise FormError(BAD_FIELD, f"{name[:40]} has more than {_MAX_DEPTH} levels")
    if isinstance(value, list):
        for item in value:
            _add(fields, name, item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _add(fields, f"{name}[{key}]", item, depth + 1)
    elif isinstance(value, bool):
        fields.setdefault(name, []).append("true" if value else "false")
    elif value is not None:
        fields.setdefault(name, []).append(str(value))
