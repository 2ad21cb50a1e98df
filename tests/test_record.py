"""The record that the journal writes beside a body: read back unchanged, or known to be damaged."""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.limits import CueLayout
from app.messages import Origin, RawFormat, Request
from app.storage.record import DamagedError, Record, decode, encode

REQUEST = Request(
    id="r:1",
    content_length=10,
    raw=RawFormat("s24", 44_100, 2, "big"),
    language="multi",
    languages=("de", "fr"),
    task="translate",
    prompt='Grüße "an"\n\ud800',
    word_timestamps=True,
    reply="segments",
    keep_alive=True,
    temperature=0.25,
    token="secret-secret",
    channel_mode="split",
    cues=CueLayout(30, 1, 4.5),
    logprobs=True,
)
RECORD = Record(REQUEST, Origin("[::1]:4711", 1_700_000_000.123456, "http"), 10, 0xFFFFFFFF)


def test_decode_returns_the_encoded_request_without_the_token() -> None:
    again = decode(encode(RECORD))
    assert again.request.token is None
    for name in set(Request.__slots__) - {"token"}:
        assert getattr(again.request, name) == getattr(REQUEST, name), name
    assert again.origin == Origin("[::1]:4711", 1_700_000_000.123456, "http", recovered=True)
    assert (again.size, again.checksum) == (10, 0xFFFFFFFF)


def test_decode_returns_a_request_without_length_and_raw_format() -> None:
    request = Request(id="r", content_length=None)
    assert decode(encode(Record(request, RECORD.origin, 5, 0))).request == request


def test_encode_leaves_the_token_out() -> None:
    assert b"secret" not in encode(RECORD)
    assert b"token" not in encode(RECORD)


@given(st.integers(0, len(encode(RECORD)) - 2))
def test_decode_reports_a_truncated_record_with_its_id(length: int) -> None:
    with pytest.raises(DamagedError) as caught:
        decode(encode(RECORD)[:length])
    whole = len(b'{"id": "r:1"')
    assert caught.value.request_id == ("r:1" if length >= whole else None)


@given(st.integers(0, len(encode(RECORD)) - 2), st.integers(0, 7))
def test_decode_detects_a_flipped_bit(at: int, bit: int) -> None:
    data = bytearray(encode(RECORD))
    data[at] ^= 1 << bit
    with contextlib.suppress(DamagedError):
        # A space more or an upper-case digit of an escape is the same request.
        assert decode(bytes(data)) == decode(encode(RECORD))


@given(st.binary(max_size=200) | st.sampled_from([b"[]", b"1", b'"x"', b"null", b'{"check": 1}']))
def test_decode_rejects_anything_else(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode(data)


def test_decode_rejects_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.record._VERSION", 2)
    newer = encode(RECORD)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="incompatible version") as caught:
        decode(newer)
    assert caught.value.request_id == "r:1"
    assert json.loads(newer)["version"] == 2


def record_of(**changes: Any) -> bytes:
    """A record as another version writes it, with its checksum. None removes a request's field."""
    content = json.loads(encode(RECORD))
    del content["check"]
    for name, value in changes.items():
        if name in ("request", "raw"):
            target = content["request"] if name == "request" else content["request"]["raw"]
            for field, new in value.items():
                if new is None:
                    del target[field]
                else:
                    target[field] = new
        else:
            content[name] = value
    check = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    return json.dumps({**content, "check": check}).encode()


def test_decode_ignores_fields_of_a_later_version() -> None:
    later = record_of(
        origin_zone="x", request={"a_new_field": ["x", 1]}, raw={"another_field": {"y": None}}
    )
    assert decode(later) == decode(encode(RECORD))


def test_decode_fills_fields_that_an_earlier_version_lacks() -> None:
    earlier = record_of(request={"temperature": None, "keep_alive": None, "raw": None})
    found = decode(earlier).request
    assert (found.temperature, found.keep_alive, found.raw) == (0.0, False, None)
    assert found.prompt == REQUEST.prompt
