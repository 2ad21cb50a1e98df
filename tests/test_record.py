"""What the journal writes beside a body: the same back, or known to be damaged."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Origin, RawFormat, Request
from app.storage.record import DamagedError, Record, decode, encode

REQUEST = Request(
    id="r:1",
    content_length=10,
    raw=RawFormat("s24", 44_100, 2, "big"),
    language="de",
    task="translate",
    prompt='Grüße "an"\n\ud800',
    word_timestamps=True,
    reply="segments",
    keep_alive=True,
    temperature=0.25,
    token="secret-secret",
)
RECORD = Record(REQUEST, Origin("[::1]:4711", 1_700_000_000.123456, "http"), 10, 0xFFFFFFFF)


def test_what_comes_back_is_what_went_in_but_for_the_token() -> None:
    again = decode(encode(RECORD))
    assert again.request.token is None
    for name in set(Request.__slots__) - {"token"}:
        assert getattr(again.request, name) == getattr(REQUEST, name), name
    assert again.origin == Origin("[::1]:4711", 1_700_000_000.123456, "http", recovered=True)
    assert (again.size, again.checksum) == (10, 0xFFFFFFFF)


def test_a_length_nobody_declared_and_a_file() -> None:
    request = Request(id="r", content_length=None)
    assert decode(encode(Record(request, RECORD.origin, 5, 0))).request == request


def test_the_token_never_reaches_the_disk() -> None:
    assert b"secret" not in encode(RECORD)
    assert b"token" not in encode(RECORD)


@given(st.integers(0, len(encode(RECORD)) - 2))
def test_what_broke_off_is_damaged_but_still_says_whose_it_was(length: int) -> None:
    with pytest.raises(DamagedError) as caught:
        decode(encode(RECORD)[:length])
    whole = len(b'{"id": "r:1"')
    assert caught.value.request_id == ("r:1" if length >= whole else None)


@given(st.integers(0, len(encode(RECORD)) - 2), st.integers(0, 7))
def test_a_flipped_bit_is_never_overlooked(at: int, bit: int) -> None:
    data = bytearray(encode(RECORD))
    data[at] ^= 1 << bit
    with contextlib.suppress(DamagedError):
        # A space more or an upper-case digit of an escape is the same request.
        assert decode(bytes(data)) == decode(encode(RECORD))


@given(st.binary(max_size=200) | st.sampled_from([b"[]", b"1", b'"x"', b"null", b'{"check": 1}']))
def test_anything_else_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode(data)


def test_another_version_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.record._VERSION", 2)
    newer = encode(RECORD)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="incompatible version") as caught:
        decode(newer)
    assert caught.value.request_id == "r:1"
    assert json.loads(newer)["version"] == 2
