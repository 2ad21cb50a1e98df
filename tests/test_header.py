"""Each field of a request's header: valid values, their meaning, and the code for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import RAW
from hypothesis import given
from hypothesis import strategies as st

from app.limits import CueLayout
from app.messages import RawFormat, Request
from app.protocols.base import ProtocolError
from app.protocols.native.header import ParsedHeader, parse_header

FLAC = {
    "byteorder": "little",
    "content-type": "binary/flac",
    "content-encoding": "flac",
    "content-length": 100,
}
MAX_BODY = 1000


def parse_bytes(data: bytes) -> ParsedHeader:
    return parse_header(data, MAX_BODY, lambda: "made")


def parse(**fields: Any) -> ParsedHeader:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return parse_bytes(json.dumps({**FLAC, **named}).encode())


def request(**fields: Any) -> Request:
    parsed = parse(**fields)
    assert parsed.failure is None
    assert parsed.request is not None
    return parsed.request


def code(**fields: Any) -> str:
    """The code for a header whose body can be skipped, and the field in its message."""
    parsed = parse(**fields)
    assert parsed.request is None
    assert parsed.failure is not None
    return f"{parsed.failure.code} {parsed.failure.message.split()[0]}"


def lost(data: bytes) -> str:
    """The code for a header that leaves the end of the message unknown."""
    with pytest.raises(ProtocolError) as caught:
        parse_bytes(data)
    # The message is sent to the client, so it must be encodable.
    caught.value.failure.message.encode()
    return caught.value.failure.code


def test_minimal_header_gives_the_defaults() -> None:
    assert request() == Request(
        id="made",
        content_length=100,
        raw=None,
        language=None,
        task="transcribe",
        prompt="",
        word_timestamps=False,
        reply="transcript",
        keep_alive=False,
    )


def test_header_with_all_fields_is_read() -> None:
    fields = {
        "id": "a.b:c_d-1",
        "content_type": "audio/l16",
        "content_encoding": "f32",
        "byteorder": "big",
        "sample_rate": 48_000,
        "channels": 2,
        "language": "de-CH",
        "task": "translate",
        "prompt": "Grüezi",
        "word_timestamps": True,
        "reply": "segments",
        "connection": "keep-alive",
        "something-else": {"entirely": [1, 2]},
    }
    assert request(**fields) == Request(
        id="a.b:c_d-1",
        content_length=100,
        raw=RawFormat("f32", 48_000, 2, "big"),
        language="de",
        task="translate",
        prompt="Grüezi",
        word_timestamps=True,
        reply="segments",
        keep_alive=True,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"content-length"',
        b"7",
        b"\xff{}",
        b'{"content-length": 1, "id": "\xe4"}',
        b'{"content-length": NaN}',
        b'{"content-length": 1, "x": NaN}',
        b'{"content-length": 1, "x": -Infinity}',
        b'{"content-length": 1} {}',
        b'{"content-length": 1, "content-length": 1}',
        b'{"content-length": 1, "x": {"a": 1, "a": 2}}',
        b'{"content-length": 1, "x": [[{"a": 1, "b": 2, "a": 1}]]}',
        b'{"content-length": 1, "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b"[" * 65_535,
        b'{"a":' * 13_000,
        b'{"content-length": ' + b"9" * 60_000 + b"}",
        b"\xef\xbb\xbf{}",
        json.dumps(FLAC).encode("utf-16"),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_header_must_be_one_utf8_json_object(data: bytes) -> None:
    assert lost(data) == "bad_header"


@pytest.mark.parametrize("value", ["x", "!~", "a" * 256, "{secret}"])
def test_token_is_read_and_never_printed(value: str) -> None:
    assert request(token=value).token == value
    # Neither a rejected header nor a printed one may leak the token into a log.
    refused = parse(token=value, task="sing")
    assert refused.token == value
    assert f"'{value}'" not in repr(refused)
    assert f"'{value}'" not in repr(request(token=value))


@pytest.mark.parametrize("value", ["", "a" * 257, "a b", "tab\t", "ä", "a\n", 5, None, ["x"], True])
def test_invalid_token_is_rejected_and_never_repeated(value: Any) -> None:
    assert code(token=value) == "bad_field token"
    parsed = parse(token=value)
    assert parsed.token is None
    assert parsed.failure is not None
    assert not isinstance(value, str) or value == "" or value not in parsed.failure.message


@pytest.mark.parametrize("value", ["9", "", True, False, None, 1.0, 1e3, [], {}, -1, -(10**30)])
def test_content_length_must_be_an_unsigned_integer(value: Any) -> None:
    assert lost(json.dumps({**FLAC, "content-length": value}).encode()) == "bad_header"


def test_content_length_is_required() -> None:
    assert lost(b"{}") == "missing_field"
    assert lost(b'{"content_length": 5, "Content-Length": 5}') == "missing_field"


@pytest.mark.parametrize("length", [None, "9", -1, MAX_BODY + 1])
def test_unusable_length_keeps_id_and_reply_mode(length: Any) -> None:
    def lose(**fields: Any) -> ProtocolError:
        with pytest.raises(ProtocolError) as caught:
            parse_bytes(json.dumps({**FLAC, "content-length": length, **fields}).encode())
        return caught.value

    assert (lose().request_id, lose().silent) == (None, False)
    assert lose(id="mine").request_id == "mine"
    assert lose(id="not one").request_id is None
    assert lose(reply="none").silent
    assert not lose(reply="loud").silent


def test_content_length_is_limited() -> None:
    assert request(content_length=MAX_BODY).content_length == MAX_BODY
    assert request(content_length=0).content_length == 0
    for length in (MAX_BODY + 1, 1 << 63, 10**400):
        assert lost(json.dumps({**FLAC, "content-length": length}).encode()) == "too_large"


@pytest.mark.parametrize("name", ["byteorder", "content-type", "content-encoding"])
def test_missing_field_is_reported_with_its_name(name: str) -> None:
    fields = {key: value for key, value in FLAC.items() if key != name}
    parsed = parse_bytes(json.dumps({**fields, "connection": "keep-alive", "id": "r"}).encode())
    assert parsed.failure is not None
    assert parsed.failure.code == "missing_field"
    assert parsed.failure.message.startswith(name)
    assert (parsed.content_length, parsed.id, parsed.keep_alive) == (100, "r", True)


@pytest.mark.parametrize("value", ["middle", "Little", "", None, 1, True, ["little"], {}])
def test_byteorder_must_be_little_or_big(value: Any) -> None:
    assert request(byteorder="big").raw is None
    assert code(byteorder=value) == "bad_field byteorder"


@pytest.mark.parametrize("name", ["content-type", "content-encoding"])
@pytest.mark.parametrize("value", [None, 5, True, ["flac"], {}])
def test_content_type_and_encoding_must_be_strings(name: str, value: Any) -> None:
    assert code(**{name: value}) == f"bad_field {name}"


@pytest.mark.parametrize("value", ["", "flac", "audio/ogg; codecs=opus", "x" * 5000, "\ud800"])
def test_content_type_and_encoding_may_be_any_string(value: str) -> None:
    assert request(content_type=value, content_encoding=value).raw is None


@pytest.mark.parametrize("value", ["audio/pcm", "audio/l16", "AUDIO/PCM", " audio/L16 ; rate=8000"])
def test_content_type_of_raw_audio_is_recognised(value: str) -> None:
    assert request(**{**RAW, "content-type": value}).raw == RawFormat("s16", 16_000, 1, "little")


@pytest.mark.parametrize(
    "encoding", ["s16", "s24", "s32", "f32", "u8", "ulaw", "alaw", "gsm", "g722"]
)
def test_raw_audio_has_these_encodings(encoding: str) -> None:
    raw = request(**{**RAW, "content-encoding": encoding}).raw
    assert raw is not None
    assert raw.encoding == encoding


@pytest.mark.parametrize("encoding", ["", "S16", "s8", "pcm", "flac"])
def test_unknown_encoding_of_raw_audio_is_rejected(encoding: str) -> None:
    assert code(**{**RAW, "content-encoding": encoding}) == "bad_field content-encoding"


@pytest.mark.parametrize("encoding", ["gsm", "g722"])
def test_raw_gsm_and_g722_have_one_channel(encoding: str) -> None:
    fields = {**RAW, "content-encoding": encoding, "channels": 2}
    assert code(**fields) == "bad_field channels"
    assert request(**{**RAW, "content-encoding": "ulaw", "channels": 2}).raw is not None


def test_raw_g722_has_its_true_sample_rate() -> None:
    fields = {**RAW, "content-encoding": "g722", "sample-rate": 8000}
    assert code(**fields) == "bad_field sample-rate"


@pytest.mark.parametrize("name", ["sample-rate", "channels"])
def test_raw_audio_requires_rate_and_channels(name: str) -> None:
    fields = {**FLAC, **{key: value for key, value in RAW.items() if key != name}}
    parsed = parse_bytes(json.dumps(fields).encode())
    assert parsed.failure is not None
    assert parsed.failure.code == "missing_field"
    assert parsed.failure.message.startswith(name)
    # They are ignored for any other file.
    assert request(**{name: "x"}).raw is None


@pytest.mark.parametrize(
    ("name", "least", "most"), [("sample-rate", 1_000, 384_000), ("channels", 1, 64)]
)
def test_rate_and_channels_have_a_range(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert request(**{**RAW, name: value}).raw is not None
    wrong: list[Any] = [least - 1, most + 1, -1, 10**30, float(least), str(least), True, None]
    for value in wrong:
        assert code(**{**RAW, name: value}) == f"bad_field {name}"


@pytest.mark.parametrize("value", ["a", "A-Z.a_z:0-9", "x" * 128])
def test_valid_id_is_kept(value: str) -> None:
    assert request(id=value).id == value


@pytest.mark.parametrize(
    "value",
    ["", "x" * 129, "a b", "a/b", "a\n", "\n", "ä", "a\0", "\ud800", "\u0661", None, 5, True, []],
)
def test_invalid_id_is_rejected_and_not_repeated(value: Any) -> None:
    assert code(id=value) == "bad_field id"
    # An invalid id is not repeated in the reply.
    assert parse(id=value).id is None


def test_id_is_made_if_missing_and_repeated_in_errors() -> None:
    assert parse(id="mine", task="sing").id == "mine"
    assert parse(task="sing").id == "made"


@pytest.mark.parametrize("value", ["transcript", "segments", "accepted", "none"])
def test_reply_mode_is_kept_in_errors(value: str) -> None:
    assert request(reply=value).reply == value
    # An error reply follows the mode, regardless of other errors.
    assert parse(reply=value, task="sing").reply == value


@pytest.mark.parametrize("value", ["", "None", None, True, 0, ["none"], {"none": 1}])
def test_unknown_reply_mode_is_rejected(value: Any) -> None:
    assert code(reply=value) == "bad_field reply"
    assert parse(reply=value).reply == "transcript"


def test_connection_sets_keep_alive() -> None:
    assert request(connection="keep-alive").keep_alive
    assert not request(connection="close").keep_alive
    assert parse(connection="keep-alive", task="sing").keep_alive
    assert parse(connection="keep-alive", reply="loud", id=" ").keep_alive


@pytest.mark.parametrize("value", ["Keep-Alive", "", None, True, 1, []])
def test_unknown_connection_is_rejected(value: Any) -> None:
    assert code(connection=value) == "bad_field connection"
    assert not parse(connection=value).keep_alive


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en-GB", "en"),
        ("en_GB", "en"),
        ("zh-Hant-TW", "zh"),
        ("haw", "haw"),
        ("yue", "yue"),
        ("auto", "auto"),
    ],
)
def test_language_is_reduced_to_its_code(value: str, read: str) -> None:
    assert request(language=value).language == read


@pytest.mark.parametrize(
    "value",
    ["", "e", "klingon", "e1", "en-", "-GB", "en GB", "en\0", "en-GB\n", "日本", None, 5, True, []],
)
def test_invalid_language_is_rejected(value: Any) -> None:
    assert code(language=value) == "bad_field language"


def test_task_is_transcribe_or_translate() -> None:
    assert request(task="translate").task == "translate"
    for value in ("", "Transcribe", None, True, 1, ["translate"]):
        assert code(task=value) == "bad_field task"


@pytest.mark.parametrize("value", ["", " ", "Größe 日本 \U0001f600", "a\nb", "ü" * 8_192])
def test_prompt_may_be_any_text(value: str) -> None:
    assert request(prompt=value).prompt == value


@pytest.mark.parametrize(
    "value", ["x" * 16_385, "ü" * 8_193, "a\0b", "\ud800", "\udfffx", None, 5, True, []]
)
def test_invalid_prompt_is_rejected(value: Any) -> None:
    assert code(prompt=value) == "bad_field prompt"


def test_surrogate_pair_is_one_character() -> None:
    data = json.dumps(FLAC)[:-1].encode() + b', "prompt": "\\ud83d\\ude00"}'
    parsed = parse_bytes(data)
    assert parsed.request is not None
    assert parsed.request.prompt == "\U0001f600"


def test_word_timestamps_must_be_a_boolean() -> None:
    assert request(word_timestamps=True).word_timestamps
    assert not request(word_timestamps=False).word_timestamps
    for value in ("true", 1, 0, None, []):
        assert code(word_timestamps=value) == "bad_field word-timestamps"


@given(st.binary(max_size=300))
def test_random_bytes_give_a_header_or_one_exception(data: bytes) -> None:
    try:
        parsed = parse_bytes(data)
    except ProtocolError:
        return
    assert (parsed.request is None) != (parsed.failure is None)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [*RAW, *FLAC, "id", "connection", "reply", "language", "task", "prompt", "word-timestamps"]
)


@given(st.dictionaries(NAMES, ANY, max_size=3))
def test_random_fields_give_a_header_or_one_exception(fields: Any) -> None:
    codes = ("bad_field", "missing_field")
    failure = None
    try:
        parsed = parse_bytes(json.dumps({**FLAC, **fields}).encode())
    except ProtocolError as error:
        failure, codes = error.failure, ("bad_header", "missing_field", "too_large")
    else:
        failure = parsed.failure
        assert (parsed.request is None) != (failure is None)
    if failure is not None:
        assert failure.code in codes
        failure.message.encode()


def test_unusable_length_keeps_id_and_silence() -> None:
    header = {"id": "x1", "reply": "none", "content-length": -1}
    with pytest.raises(ProtocolError) as caught:
        parse_bytes(json.dumps(header).encode())
    assert (caught.value.request_id, caught.value.silent) == ("x1", True)
    with pytest.raises(ProtocolError) as caught:
        parse_bytes(b'{"reply": "accepted", "id": "no good", "content-length": null}')
    assert (caught.value.request_id, caught.value.silent) == (None, False)


# The size of cues.


def test_header_without_a_size_of_cues_has_none() -> None:
    assert request().cues is None
    assert request(**{"max-line-width": 0, "max-cue-seconds": 3}).cues is None


@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        ({"max-line-width": 20}, CueLayout(20, 2, 7.0)),
        ({"max-line-count": 1}, CueLayout(42, 1, 7.0)),
        ({"max-cue-seconds": 3}, CueLayout(42, 2, 3.0)),
        (
            {"max-line-width": 1000, "max-line-count": 100, "max-cue-seconds": 0.5},
            CueLayout(1000, 100, 0.5),
        ),
    ],
)
def test_header_with_a_size_of_cues_has_defaults_for_the_rest(
    fields: dict[str, Any], layout: CueLayout
) -> None:
    assert request(**fields).cues == layout


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max-line-width", [-1, 1001, "42", 42.0, None, True]),
        ("max-line-count", [0, 101, "2", None]),
        ("max-cue-seconds", [0.4, 3601, "7", None, True, 10**400, -1]),
    ],
)
def test_invalid_size_of_cues_is_rejected(name: str, values: list[Any]) -> None:
    for value in values:
        assert code(**{name: value}) == f"bad_field {name}"
