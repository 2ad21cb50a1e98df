"""Access tokens from files and variables and their comparison; addresses that others reach."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.network import access_token
from app.network.access_token import AccessToken, AccessTokenError, read_token
from app.network.addresses import reachable_by_others

TOKEN = "0123456789abcdefghij!~"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def test_access_token_admits_only_itself() -> None:
    token_of_node = AccessToken(TOKEN)
    assert not token_of_node.open
    assert token_of_node.admits(TOKEN)
    wrong = [None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), TOKEN[:-1] + "\x00", "é", "\ud800"]
    assert [token for token in wrong if token_of_node.admits(token)] == []


def test_access_token_admits_every_request_if_unset() -> None:
    token_of_node = AccessToken(None)
    assert token_of_node.open
    assert token_of_node.admits(None)
    assert token_of_node.admits("whatever")


def test_access_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is `hmac.compare_digest` on bytes."""
    seen: list[tuple[object, object]] = []

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return one == other

    monkeypatch.setattr(access_token.hmac, "compare_digest", compare)
    token_of_node = AccessToken(TOKEN)
    assert [token_of_node.admits(token) for token in (TOKEN, "x", None)] == [True, False, False]
    assert [(type(one), other) for one, other in seen] == [(bytes, TOKEN.encode())] * 3


def test_read_token_strips_the_first_line(file: Path) -> None:
    file.write_text(f"  {TOKEN}\t\r\nthe next line\n")
    with capture_logs() as log:
        assert read_token(file, {}) == TOKEN
    assert log == []


def test_read_token_takes_the_variable() -> None:
    assert read_token(None, {"NODE_WHISPER_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {"NODE_WHISPER_TOKEN": ""}) is None
    assert read_token(None, {}) is None


def test_read_token_rejects_file_and_variable_together(file: Path) -> None:
    with pytest.raises(AccessTokenError, match="both set"):
        read_token(file, {"NODE_WHISPER_TOKEN": TOKEN})
    assert read_token(file, {"NODE_WHISPER_TOKEN": ""}) == TOKEN


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "first line is empty"),
        (b"\n" + TOKEN.encode(), "first line is empty"),
        (b"   \n", "first line is empty"),
        (b"1234567", "8 to 256 characters; this one has 7"),
        (b"x" * 257, "8 to 256 characters; this one has 257"),
        (b"x" * 1_000_000, "8 to 256 characters; this one has 1024"),
        ("größeres Geheimnis".encode(), "printable ASCII"),
        (b"\xff\xfe" * 10, "printable ASCII"),
        (b"two words of it", "without spaces"),
        (b"with\x00zero\x07bell", "printable ASCII"),
    ],
)
def test_read_token_rejects_unusable_content(file: Path, content: bytes, expected: str) -> None:
    file.write_bytes(content)
    with pytest.raises(AccessTokenError, match=expected) as raised:
        read_token(file, {})
    assert str(file) in str(raised.value)


def test_messages_never_contain_the_token() -> None:
    for token in ("hunter2", "correct horse battery", "schön-geheim", "x" * 300):
        with capture_logs() as log, pytest.raises(AccessTokenError) as raised:
            read_token(None, {"NODE_WHISPER_TOKEN": token})
        assert token not in str(raised.value) + str(log)


def test_read_token_reports_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(AccessTokenError, match="No such file"):
        read_token(tmp_path / "missing", {})
    with pytest.raises(AccessTokenError, match="Is a directory"):
        read_token(tmp_path, {})


def test_read_token_warns_of_a_short_token() -> None:
    with capture_logs() as log:
        assert read_token(None, {"NODE_WHISPER_TOKEN": "12345678"}) == "12345678"
    assert [(entry["log_level"], entry["characters"]) for entry in log] == [("warning", 8)]
    assert "12345678" not in str(log)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_read_token_warns_of_a_file_that_others_can_read(
    file: Path, mode: int, warned: int
) -> None:
    file.chmod(mode)
    with capture_logs() as log:
        read_token(file, {})
    assert [entry["log_level"] for entry in log] == ["warning"] * warned
    assert all(entry["file"] == str(file) for entry in log)


def test_read_token_reads_a_pipe() -> None:
    """`--token-file <(pass show node)`."""
    ours, theirs = os.pipe()
    os.write(theirs, TOKEN.encode())
    os.close(theirs)
    try:
        assert read_token(Path(f"/dev/fd/{ours}"), {}) == TOKEN
    finally:
        os.close(ours)


def test_read_token_accepts_the_tokens_of_the_docs(file: Path) -> None:
    """docs/security.md names `openssl rand -base64 32` and `secrets.token_urlsafe`."""
    file.write_bytes(secrets.token_urlsafe(32).encode())
    with capture_logs() as log:
        assert read_token(file, {})
    assert log == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", False),
        ("127.8.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.7", True),
        ("fe80::1", True),
        ("no-such-host.invalid", False),
        ("x" * 300, False),
    ],
)
def test_reachable_by_others_is_true_for_network_addresses(host: str, expected: bool) -> None:
    assert reachable_by_others(host) is expected
