"""Every setting is read from a flag and a variable; a wrong value gives one line and status 2."""

from __future__ import annotations

import errno
import tempfile
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.settings.option import PREFIX
from app.settings.settings import Settings, read

# Flag, its field, a value as text, the value read, and a wrong one (None: every text is right).
CASES: list[tuple[str, str, str, Any, str | None]] = [
    ("-m", "model", "base", "base", ""),
    ("--model", "model", "./x.bin", "./x.bin", ""),
    ("--host", "host", "0.0.0.0", "0.0.0.0", None),
    ("--port", "port", "0", 0, "65536"),
    ("--token-file", "token_file", "/no/such/yet", Path("/no/such/yet"), ""),
    ("--tls-cert", "tls_cert", "node.pem", Path("node.pem"), ""),
    ("--tls-key", "tls_key", "node.key", Path("node.key"), ""),
    ("--tls-client-ca", "tls_client_ca", "ca.pem", Path("ca.pem"), ""),
    ("--http-port", "http_port", "8080", 8080, "65536"),
    ("--http-port", "http_port", "auto", "auto", "maybe"),
    ("--http-port", "http_port", "off", None, "on"),
    ("--vosk-port", "vosk_port", "2700", 2700, "70000"),
    ("--vosk-port", "vosk_port", "off", None, "auto"),
    ("--wyoming-port", "wyoming_port", "10300", 10300, "65536"),
    ("--wyoming-port", "wyoming_port", "off", None, "auto"),
    ("--served-model-name", "served_model_name", "a, b", ("a", "b"), "a,,b"),
    ("--cors-origin", "cors_origin", "https://a.example/", ("https://a.example",), "a.example"),
    ("--trusted-proxy", "trusted_proxy", "::1", (ip_network("::1"),), "proxy.lan"),
    ("--name", "name", "kitchen", "kitchen", "a\nb"),
    ("--task", "task", "translate", "translate", "sing"),
    ("--cors-origin", "cors_origin", "app://obsidian.md", ("app://obsidian.md",), "app:/x"),
    ("--cors-origin", "cors_origin", "null", ("null",), "nul"),
    ("--cors-origin", "cors_origin", "file://", ("file://",), "file"),
    ("--cors-origin", "cors_origin", "https://A.example:443", ("https://a.example",), "://a"),
    ("--cors-origin", "cors_origin", "http://[::1]:80/", ("http://[::1]",), "http://"),
    ("--cors-origin", "cors_origin", "https://bücher.de", ("https://xn--bcher-kva.de",), "bücher"),
    ("--wyoming-allow", "wyoming_allow", "10.0.0.0/8", (ip_network("10.0.0.0/8"),), "10.0.0.0/33"),
    ("--port", "port", "56789", 56789, "on"),
    ("--queue", "queue", "nats://a,nats://b", ("nats://a", "nats://b"), "http://a"),
    ("--queue", "queue", "tls://a:4222", ("tls://a:4222",), "nats://u:p@a"),
    ("--queue-credentials", "queue_credentials", "/no/yet", Path("/no/yet"), ""),
    ("--queue-ca", "queue_ca", "ca.pem", Path("ca.pem"), ""),
    ("--queue-places", "queue_places", "5", 5, "0"),
    ("--threads", "threads", "3", 3, "0"),
    ("--engines", "engines", "2", 2, "0"),
    ("--engines", "engines", "auto", "auto", "17"),
    ("--encoder-context", "encoder_context", "full", "full", "half"),
    ("--language", "language", "en-GB", "en", "klingon"),
    ("--language", "language", "German", "de", "e"),
    ("--language", "language", "auto", "auto", "e"),
    ("--language", "language", "multi", "multi", "en de"),
    ("--languages", "languages", "en-GB,de", ("en", "de"), "en,auto"),
    ("--prompt", "prompt", "Grüezi", "Grüezi", "ü" * 8193),
    ("--vad-threshold", "vad_threshold", "0.25", 0.25, "1.1"),
    ("--media", "media", "off", "off", "on"),
    ("--queue-size", "queue_size", "1", 1, "0"),
    ("--max-connections", "max_connections", "7", 7, "-1"),
    ("--max-audio-seconds", "max_audio_seconds", "90.5", 90.5, "0"),
    ("--max-message-bytes", "max_message_bytes", "1000", 1000, "1.5"),
    ("--max-buffered-bytes", "max_buffered_bytes", "2000000000", 2_000_000_000, "all"),
    ("--max-live", "max_live", "3", 3, "0"),
    ("--when-full", "when_full", "reject", "reject", "panic"),
    ("--models-dir", "models_dir", "/", Path("/"), "/nowhere/at/all"),
    ("--spool-dir", "spool_dir", "/tmp", Path("/tmp"), "/nowhere/at/all"),
    ("--journal", "journal", "/no/such/yet", Path("/no/such/yet"), ""),
    ("--output", "output", "json", "json", "xml"),
    ("--log-format", "log_format", "json", "json", "xml"),
    ("--drain-seconds", "drain_seconds", "0", 0.0, "nan"),
]
SWITCHES = [
    ("-lv", "log_verbose"),
    ("--log-verbose", "log_verbose"),
    ("--offline", "offline"),
    ("--strict-model", "strict_model"),
    ("--metrics-auth", "metrics_auth"),
    ("--wyoming-streaming", "wyoming_streaming"),
    ("--wyoming-open", "wyoming_open"),
    ("--announce", "announce"),
    ("--keep-markers", "keep_markers"),
]


def variable(field: str) -> str:
    return f"NODE_WHISPER_{field.upper()}"


def refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], environment: dict[str, str]
) -> str:
    """The one line that a wrong value gives on stderr."""
    with pytest.raises(SystemExit) as caught:
        read(arguments, environment)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err


def test_defaults_are_those_in_the_documentation() -> None:
    settings = read([], {})
    assert settings == Settings(
        model="tiny.en",
        log_verbose=False,
        host="127.0.0.1",
        port=56789,
        token_file=None,
        tls_cert=None,
        tls_key=None,
        tls_client_ca=None,
        http_port=None,
        served_model_name=(),
        strict_model=False,
        cors_origin=(),
        trusted_proxy=(),
        metrics_auth=False,
        vosk_port=None,
        wyoming_port=None,
        wyoming_streaming=False,
        wyoming_open=False,
        wyoming_allow=(),
        announce=False,
        name="",
        task="transcribe",
        queue=(),
        queue_credentials=None,
        queue_ca=None,
        queue_places=3,
        threads=None,
        engines=1,
        encoder_context="auto",
        language=None,
        languages=(),
        prompt="",
        keep_markers=False,
        vad_threshold=0.5,
        media="auto",
        queue_size=64,
        max_connections=1000,
        max_audio_seconds=4 * 3600.0,
        max_message_bytes=512 * 1024 * 1024,
        max_buffered_bytes=3 * 512 * 1024 * 1024,
        max_live=16,
        when_full="wait",
        models_dir=None,
        spool_dir=Path("/var/tmp"),
        journal=None,
        offline=False,
        output="auto",
        log_format="console",
        drain_seconds=8.0,
    )


def test_every_setting_has_a_row_in_this_file() -> None:
    covered = {field for _, field, *_ in CASES} | {field for _, field in SWITCHES}
    assert covered == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(("flag", "field", "text", "value", "_wrong"), CASES)
def test_setting_is_read_from_flag_and_variable(
    flag: str, field: str, text: str, value: Any, _wrong: str | None
) -> None:
    assert getattr(read([flag, text], {}), field) == value
    assert getattr(read([f"--{field.replace('_', '-')}={text}"], {}), field) == value
    assert getattr(read([], {variable(field): text}), field) == value


@pytest.mark.parametrize(("flag", "field"), SWITCHES)
def test_switch_is_set_by_flag_and_variable(flag: str, field: str) -> None:
    assert getattr(read([flag], {}), field) is True
    for text, value in (("1", True), ("true", True), ("YES", True), ("0", False), ("no", False)):
        assert getattr(read([], {variable(field): text}), field) is value
    assert getattr(read([flag], {variable(field): "0"}), field) is True


@pytest.mark.parametrize(
    ("flag", "field", "text", "wrong"),
    [(flag, field, text, wrong) for flag, field, text, _, wrong in CASES if wrong is not None],
)
def test_wrong_value_gives_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], flag: str, field: str, text: str, wrong: str
) -> None:
    assert flag in refused(capsys, [flag, wrong], {})
    if wrong:
        assert variable(field) in refused(capsys, [], {variable(field): wrong})
    else:
        # Compose files write an unset variable as empty.
        assert read([], {variable(field): ""}) == read([], {})


def test_spool_dir_that_takes_no_files_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    """/proc is a directory that not even root can put a file into."""
    assert "--spool-dir: cannot write to /proc" in refused(capsys, ["--spool-dir", "/proc"], {})


def test_spool_dir_that_is_full_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert read(["--spool-dir", "/tmp"], {}).spool_dir == Path("/tmp")


def test_switch_rejects_an_unclear_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NODE_WHISPER_OFFLINE" in refused(capsys, [], {"NODE_WHISPER_OFFLINE": "perhaps"})


@pytest.mark.parametrize(("flag", "text", "other"), [("--port", "1", "2"), ("--host", "a", "b")])
def test_flag_overrides_its_variable(flag: str, text: str, other: str) -> None:
    field = flag[2:]
    assert str(getattr(read([flag, text], {variable(field): other}), field)) == text


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "", "x", "1e999"])
@pytest.mark.parametrize(
    "flag", ["--port", "--threads", "--vad-threshold", "--queue-size", "--drain-seconds"]
)
def test_number_rejects_other_text(
    capsys: pytest.CaptureFixture[str], flag: str, text: str
) -> None:
    # "=": argparse would take -1 for a flag.
    assert flag in refused(capsys, [f"{flag}={text}"], {})


@pytest.mark.parametrize("prompt", ["a\0b", "\udc80"])
def test_prompt_rejects_text_that_the_engine_cannot_take(
    capsys: pytest.CaptureFixture[str], prompt: str
) -> None:
    """Bytes in the environment that are not UTF-8 arrive as lone surrogates."""
    assert "--prompt" in refused(capsys, ["--prompt", prompt], {})


def test_networks_are_separated_by_commas_or_repeated() -> None:
    one, two, three = (ip_network(text) for text in ("192.168.1.0/24", "fd00::/8", "10.0.0.7/32"))
    again = ["--wyoming-allow", "192.168.1.9/24, fd00::/8", "--wyoming-allow", "10.0.0.7"]
    assert read(again, {}).wyoming_allow == (one, two, three)
    listed = {variable("wyoming_allow"): "192.168.1.0/24,fd00::/8"}
    assert read([], listed).wyoming_allow == (one, two)
    # A flag replaces its variable instead of adding to it.
    assert read(["--wyoming-allow", "10.0.0.7"], listed).wyoming_allow == (three,)


@pytest.mark.parametrize("text", ["auto", "full", "64", "1500"])
def test_encoder_context_accepts_numbers_and_words(text: str) -> None:
    read_back = read(["--encoder-context", text], {}).encoder_context
    assert read_back == (int(text) if text.isdigit() else text)


def test_encoder_context_rejects_values_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1500" in refused(capsys, ["--encoder-context", "1501"], {})


@pytest.mark.parametrize("arguments", [["--nonsense"], ["file.wav"], ["--port"], ["--que", "3"]])
def test_unknown_arguments_are_rejected(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    refused(capsys, arguments, {})


def test_unrelated_variables_are_ignored() -> None:
    assert read([], {"NODE_WHISPER_NONSENSE": "1", "PORT": "x"}) == read([], {})


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_flag_and_fits_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        read([flag], {})
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, *_ in [*CASES, *SWITCHES]:
        assert name in out
    assert PREFIX in out
    assert "56789" in out
    assert "(default: 14400)" in out
    assert "%" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_version_flag_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"node-whisper {__version__}\n"
