"""Multipart bodies (RFC 2046, section 5.1, and RFC 7578): bytes in, fields and audio out."""

from __future__ import annotations

import pytest
from http_peer import AUDIO
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import split

from app.protocols.http.form import Form, FormError, boundary_of
from app.protocols.http.multipart import (
    MAX_PART_HEAD,
    Multipart,
    MultipartError,
    PartData,
    PartHead,
)

BOUNDARY = b"XyZ0"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"'
LANGUAGE = b'Content-Disposition: form-data; name="language"'


def part(head: bytes, data: bytes, *, padding: bytes = b"") -> bytes:
    return b"--XyZ0" + padding + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def read(*pieces: bytes, boundary: bytes = BOUNDARY) -> tuple[bytes, dict[str, list[str]]]:
    """The audio and the fields of a form."""
    form = Form(boundary)
    audio = b"".join(bytes(view) for piece in pieces for view in form.feed(piece))
    return audio, form.finish()


def both(body: bytes) -> tuple[bytes, dict[str, list[str]]]:
    whole = read(body)
    assert read(*(body[at : at + 1] for at in range(len(body)))) == whole
    return whole


WHOLE = part(FILE, AUDIO) + part(LANGUAGE, b"en") + b"--XyZ0--\r\n"
EXPECTED = (AUDIO, {"language": ["en"]})

FORMS: dict[str, bytes] = {
    "as usual": WHOLE,
    "no line end at the end": WHOLE[:-2],
    "a preamble": b"This is a message in parts - as mail has it.\r\n\r\n--XyZ\r\n--\r\n" + WHOLE,
    "an empty line before it": b"\r\n" + WHOLE,
    "an epilogue": WHOLE + b"Further text\r\n--XyZ0\r\nX: y\r\n\r\n--XyZ0--",
    "an epilogue without a line end": WHOLE[:-2] + b"text",
    "padding": part(FILE, AUDIO, padding=b" \t ")
    + part(LANGUAGE, b"en", padding=b"    ")
    + b"--XyZ0-- \t\r\n",
    "folded fields": WHOLE.replace(b"form-data; name", b"form-data;\r\n\t name"),
    "names in another case": WHOLE.replace(b"Content-Disposition", b"content-DISPOSITION"),
    "further fields": WHOLE.replace(FILE, b"X-Other: 1\r\n" + FILE + b"\r\nContent-Length: 3"),
    "an extended name of the file": WHOLE.replace(
        b'filename="a.wav"', b"filename*=UTF-8''%e2%82%ac.wav"
    ),
    "a quoted name of the file": WHOLE.replace(b"a.wav", b'a\\";name=\\"language.wav'),
    "an escaped name of the file": WHOLE.replace(b"a.wav", b"a%22;%20name=%22b.wav"),
    "a name of the file like a path": WHOLE.replace(b"a.wav", b"C:\\x\\..\\a.wav"),
    "a name without quotes": WHOLE.replace(b'name="file"', b"name=file"),
    "a type of text": WHOLE.replace(LANGUAGE, LANGUAGE + b"\r\nContent-Type: text/plain"),
    "a charset": WHOLE.replace(
        LANGUAGE, LANGUAGE + b'\r\nContent-Type: text/plain; charset="UTF-8"'
    ),
    "an encoding that changes nothing": WHOLE.replace(
        LANGUAGE, LANGUAGE + b"\r\nContent-Transfer-Encoding: 8BIT"
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form_is_understood(name: str) -> None:
    assert both(FORMS[name]) == EXPECTED


def test_fields_of_one_name_are_kept_apart() -> None:
    body = part(FILE, b"a") + part(LANGUAGE, b"en") + part(LANGUAGE, b"de") + b"--XyZ0--"
    assert both(body) == (b"a", {"language": ["en", "de"]})


def test_charset_of_a_field_is_used() -> None:
    latin = LANGUAGE + b"\r\nContent-Type: text/plain; charset=ISO-8859-1"
    assert both(part(FILE, b"a") + part(latin, b"Z\xfcrich") + b"--XyZ0--")[1] == {
        "language": ["Zürich"]
    }
    other = LANGUAGE + b"\r\nContent-Type: text/plain; charset=utf-16"
    with pytest.raises(FormError, match="language has an unknown charset"):
        both(part(FILE, b"a") + part(other, b"e\0n\0") + b"--XyZ0--")


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r", b"--", b"\r\n--XyZ", b"\r\n--XyZ0-"])
def test_data_near_a_delimiter(data: bytes) -> None:
    assert both(part(FILE, data) + b"--XyZ0--\r\n")[0] == data
    between = part(LANGUAGE, b"en") + part(FILE, data) + part(LANGUAGE, b"x")
    assert both(between + b"--XyZ0--")[0] == data


def test_boundary_within_a_line_is_data() -> None:
    for data in (
        b"\r\n--XyZ0x\r\n",
        b"--XyZ0\r\n",
        b"\n--XyZ0\r\n",
        b"\r\n--XyZ0 x\r\n",
        b"\r--XyZ0",
    ):
        assert both(part(FILE, b"a" + data) + b"--XyZ0--")[0] == b"a" + data


def test_part_without_data_or_an_empty_line_before_the_delimiter() -> None:
    assert both(b"--XyZ0\r\n" + FILE + b"\r\n\r\n--XyZ0--")[0] == b""


FAULTS: dict[str, tuple[bytes, str, str]] = {
    "no delimiter": (b"text", "bad_header", "does not occur"),
    "nothing": (b"", "incomplete", "before its closing boundary"),
    "another boundary": (WHOLE.replace(b"XyZ0", b"XyZ1"), "bad_header", "does not occur"),
    "no end": (WHOLE[:-4], "incomplete", "before its closing boundary"),
    "half a head": (b"--XyZ0\r\n" + FILE[:20], "incomplete", "before its closing boundary"),
    "no parts": (b"--XyZ0--\r\n", "missing_field", "file is missing"),
    "no fields": (b"--XyZ0\r\n\r\nx\r\n--XyZ0--", "bad_header", "has no name"),
    "no name": (WHOLE.replace(b'name="file"; ', b""), "bad_header", "has no name"),
    "another disposition": (WHOLE.replace(b"form-data", b"attachment"), "bad_header", "no name"),
    "a space before the colon": (WHOLE.replace(b"ition:", b"ition :"), "bad_header", "not valid"),
    "no colon": (WHOLE.replace(b"ition:", b"ition"), "bad_header", "not valid"),
    "NUL in a field": (WHOLE.replace(b"a.wav", b"a\0.wav"), "bad_header", "not valid"),
    "CR in a field": (WHOLE.replace(b"a.wav", b"a\r.wav"), "bad_header", "not valid"),
    "LF in a field": (WHOLE.replace(b"a.wav", b"a\n.wav"), "bad_header", "not valid"),
    "an encoding": (
        WHOLE.replace(FILE, FILE + b"\r\nContent-Transfer-Encoding: base64"),
        "bad_header",
        "must be binary",
    ),
    "a long head": (WHOLE.replace(b"a.wav", b"x" * MAX_PART_HEAD), "bad_header", "too many"),
    "two files": (part(FILE, b"a") * 2 + b"--XyZ0--", "bad_field", "occurs twice"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_its_code(name: str) -> None:
    body, code, message = FAULTS[name]
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        with pytest.raises(FormError, match=message) as raised:
            read(*pieces)
        assert raised.value.failure.code == code


BOUNDARIES: dict[str, bytes | None] = {
    "boundary=abc": b"abc",
    'boundary="a b:c"': b"a b:c",
    "BOUNDARY=abc; charset=utf-8": b"abc",
    'charset=utf-8; boundary="abc"': b"abc",
    f"boundary={'x' * 70}": b"x" * 70,
    f"boundary={'x' * 71}": None,
    "boundary=": None,
    'boundary=""': None,
    "charset=utf-8": None,
    r'boundary="a\b\c"': b"abc",
}


@pytest.mark.parametrize("parameters", BOUNDARIES)
def test_boundary_of_the_content_type(parameters: str) -> None:
    expected = BOUNDARIES[parameters]
    content_type = f"multipart/form-data; {parameters}"
    if expected is None:
        with pytest.raises(FormError, match="boundary"):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == expected
        body = WHOLE.replace(b"XyZ0", expected)
        audio = AUDIO.replace(b"XyZ0", expected)
        assert read(body, boundary=expected) == (audio, {"language": ["en"]})


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from([b"\r", b"\n", b"-", b"XyZ0", b" ", b"x"])), max_size=3),
    st.lists(st.integers(0, 1 << 10), max_size=8),
)
def test_random_data_passes_through_in_any_split(
    values: list[list[bytes]], cuts: list[int]
) -> None:
    datas = [b"".join(value) for value in values]
    body = b"".join(part(b"X: y", data) for data in datas) + b"--XyZ0--\r\n"

    def play(pieces: list[bytes]) -> tuple[list[bytes], bool, bool]:
        reader, found = Multipart(BOUNDARY), []
        try:
            for data in pieces:
                for piece in reader.feed(data):
                    if isinstance(piece, PartHead):
                        found.append(b"")
                    elif isinstance(piece, PartData):
                        found[-1] += piece.data
        except MultipartError:
            return found, reader.ended, True
        return found, reader.ended, False

    whole = play([body])
    assert play(list(split(body, cuts))) == whole
    if not any(b"\r\n--XyZ0" in b"\r\n" + data for data in datas):
        assert whole == (datas, True, False)
