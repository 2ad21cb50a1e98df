"""The settings: one frozen object, and the table of flags and variables it is read from.

Every flag has a variable of the same name (`--queue-size`, `NODE_WHISPER_QUEUE_SIZE`); a flag beats
its variable. Every default carries its reason in its help or beside it. A value that makes no sense
is one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from app import __version__
from app.decoding.context import FULL, EncoderContext
from app.prompts import prompt_fault

PREFIX = "NODE_WHISPER_"

# As browsers send it: a scheme, a host, perhaps a port, and no path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MODELS_DIR = Path(__file__).resolve().parent.parent / "models"
"""The catalogue's own directory, always searched."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can choose. Seconds, bytes; None where the node chooses by itself."""

    model: str
    log_verbose: bool
    host: str
    port: int
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    http_port: int | Literal["auto"] | None
    cors_origin: tuple[str, ...]
    metrics_auth: bool
    wyoming_port: int | None
    wyoming_streaming: bool
    wyoming_open: bool
    wyoming_allow: tuple[Network, ...]
    announce: bool
    threads: int | None
    encoder_context: EncoderContext
    language: str | None
    prompt: str
    vad_threshold: float
    queue_size: int
    max_connections: int
    max_audio_seconds: float
    max_message_bytes: int
    max_buffered_bytes: int
    when_full: str
    models_dir: Path | None
    spool_dir: Path
    journal: Path | None
    offline: bool
    output: str
    log_format: str
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class _Option:
    names: tuple[str, ...]
    default: Any
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    repeatable: bool = False
    """Given several times, the values are one after the other; `parse` makes a tuple."""

    @property
    def field(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.field.upper()


def _number(
    kind: Callable[[str], Any], least: float, most: float | None = None
) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        # Written so that NaN fails it as well.
        if not value >= least or (most is not None and not value <= most):
            limits = f"at least {least:g}" if most is None else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: {limits}")
        return value

    return parse


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return parse


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of 1, true, yes, 0, false, no")
    return values[text.lower()]


def _language(text: str) -> str:
    code = text.lower().replace("_", "-").partition("-")[0]
    if code != "auto" and not (code.isascii() and code.isalpha() and 2 <= len(code) <= 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not a language code such as en, or auto")
    return code


def _encoder_context(text: str) -> EncoderContext:
    if text in ("auto", "full"):
        return cast(EncoderContext, text)
    positions: int = _number(int, 64, FULL)(text)
    return positions


def _prompt(text: str) -> str:
    if fault := prompt_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def _http_port(text: str) -> int | Literal["auto"] | None:
    if text in ("auto", "off"):
        return "auto" if text == "auto" else None
    number: int = _number(int, 0, 65535)(text)
    return number


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part.strip()) for part in text.split(","))


def _origin(text: str) -> str:
    # Browsers send it without a path, so a slash at the end would never match.
    origin = text.rstrip("/").lower()
    if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
        wanted = "an origin such as https://example.com, or *"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return origin


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(_network(part.strip()) for part in text.split(","))


def _network(text: str) -> Network:
    try:
        # An address stands for itself; one within a network, as ip(8) shows it, for that.
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        wanted = "an address or a network such as 192.168.1.0/24"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    return path


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file or directory")
    return Path(text)


def _model(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a model or a file")
    return text


_MANY = 1_000_000

_OPTIONS = (
    _Option(("-m", "--model"), "tiny.en", _model, "a Whisper model by name, or a ggml file"),
    _Option(("-lv", "--log-verbose"), False, _flag, "log at debug level"),
    _Option(
        ("--host",),
        "127.0.0.1",
        str,
        "address to listen on; 0.0.0.0 opens the node to the network, which is for you to decide",
    ),
    _Option(("--port",), 56789, _number(int, 0, 65535), "TCP port; 0 picks a free one"),
    _Option(
        ("--token-file",),
        None,
        _path,
        "requests have to show the token in this file's first line (default: the variable"
        " NODE_WHISPER_TOKEN, else none is asked for)",
        "FILE",
    ),
    _Option(
        ("--tls-cert",),
        None,
        _path,
        "encrypt: PEM file of the node's certificate with those up to its authority",
        "FILE",
    ),
    _Option(("--tls-key",), None, _path, "PEM file of that certificate's private key", "FILE"),
    _Option(
        ("--tls-client-ca",),
        None,
        _path,
        "let in only who shows a certificate of an authority in this PEM file",
        "FILE",
    ),
    _Option(
        ("--http-port",),
        None,
        _http_port,
        "a further port, for HTTP and the page to try the node with: 8080 by convention, 0 picks a"
        " free one, auto is 8080 if that is free, off is none (default: off)",
        "PORT",
    ),
    _Option(
        ("--cors-origin",),
        (),
        _origins,
        "web pages of other origins that may use the HTTP port, such as https://example.com, with"
        " commas or given again; * is any page anywhere (default: none)",
        "ORIGIN",
        repeatable=True,
    ),
    _Option(
        ("--metrics-auth",),
        False,
        _flag,
        "ask for the token at /metrics and /readyz too, where there is one",
    ),
    _Option(
        ("--wyoming-port",),
        None,
        _number(int, 0, 65535),
        "a second port, for Home Assistant: 10300 by convention, 0 picks a free one (default: off)",
        "PORT",
    ),
    _Option(
        ("--wyoming-streaming",),
        False,
        _flag,
        "send Wyoming transcripts piece by piece, too, as the windows of a recording are done",
    ),
    _Option(
        ("--wyoming-open",),
        False,
        _flag,
        "let Wyoming, which knows neither token nor TLS, out of this machine where the others have"
        " one",
    ),
    _Option(
        ("--wyoming-allow",),
        (),
        _networks,
        "who may connect there: addresses or networks, with commas or given again (default: all)",
        "CIDR",
        repeatable=True,
    ),
    _Option(
        ("--announce",),
        False,
        _flag,
        "announce the Wyoming port by mDNS; needs requirements-announce.txt",
    ),
    _Option(
        ("--threads",),
        None,
        _number(int, 1, 512),
        "engine threads (default: the processors this process may use)",
        "N",
    ),
    _Option(
        ("--encoder-context",),
        "auto",
        _encoder_context,
        f"how much of the encoder to use: auto, full, or positions up to {FULL}",
        "CONTEXT",
    ),
    _Option(
        ("--language",),
        None,
        _language,
        "language of requests that name none (default: auto for multilingual models, else en)",
        "CODE",
    ),
    _Option(("--prompt",), "", _prompt, "words to expect, for requests that bring no prompt"),
    _Option(
        ("--vad-threshold",),
        0.5,
        _number(float, 0, 1),
        "probability that counts as speech; 0 takes everything for speech",
        "P",
    ),
    _Option(
        ("--queue-size",),
        64,
        _number(int, 1, _MANY),
        "requests admitted and unfinished; further ones wait unread",
        "N",
    ),
    _Option(
        ("--max-connections",),
        1000,
        _number(int, 1, _MANY),
        "open connections; further ones are told busy",
        "N",
    ),
    _Option(
        ("--max-audio-seconds",),
        4 * 3600.0,
        _number(float, 1, 7 * 86400),
        "longest recording taken",
        "S",
    ),
    _Option(
        ("--max-message-bytes",),
        512 * 1024 * 1024,
        _number(int, 1, 1 << 40),
        "largest body taken; 512 MiB are four hours of 16 kHz 16-bit samples",
        "N",
    ),
    _Option(
        ("--max-buffered-bytes",),
        None,
        _number(int, 1, 1 << 50),
        "bodies held at one time, in memory and in --spool-dir together; further ones wait unread"
        " (default: three of the largest: one worked on, one received, one of somebody else)",
        "N",
    ),
    _Option(
        ("--when-full",),
        "wait",
        _choice("wait", "reject"),
        "what happens to further requests: wait lets their senders wait unread, reject answers busy"
        " and says when to come back",
        "WHAT",
    ),
    _Option(("--models-dir",), None, _directory, "a further directory of models", "DIR"),
    _Option(
        ("--spool-dir",),
        Path("/var/tmp"),
        _directory,
        "where bodies over 4 MiB wait; a disk, not RAM",
        "DIR",
    ),
    _Option(
        ("--journal",),
        None,
        _path,
        "write every accepted request down in this directory, and take up after a crash what is"
        " there; off by default, since SD cards wear",
        "DIR",
    ),
    _Option(("--offline",), False, _flag, "never touch the network"),
    _Option(
        ("--output",),
        "auto",
        _choice("auto", "text", "json"),
        "stdout as text or JSON lines; auto is text on a terminal",
        "KIND",
    ),
    _Option(("--log-format",), "console", _choice("console", "json"), "the log on stderr", "KIND"),
    _Option(
        ("--drain-seconds",),
        8.0,
        _number(float, 0, 3600),
        "how long to finish after SIGTERM; Docker kills after 10",
        "S",
    ),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line: argparse would print the whole usage above it, where nobody finds the fault."""
        self.exit(2, f"node-whisper: {message} (see --help)\n")


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment. Exits with 2 where a value is wrong."""
    parser = _Parser(
        prog="python -m app",
        description="A transcription worker node: audio in over TCP, text out.",
        epilog=f"Each option can also be set as {PREFIX}..., for example {PREFIX}QUEUE_SIZE.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"node-whisper {__version__}")
    for option in _OPTIONS:
        _add(parser, option)
    # Flags first: -h answers whatever the environment holds.
    given = vars(parser.parse_args(arguments))
    values = {option.field: option.default for option in _OPTIONS}
    values.update(_from_environment(parser, environment))
    values.update(given)
    values.update({name: tuple(value) for name, value in values.items() if type(value) is list})
    largest = values["max_message_bytes"]
    if values["max_buffered_bytes"] is None:
        values["max_buffered_bytes"] = 3 * largest
    if values["max_buffered_bytes"] < largest:
        parser.error(f"--max-buffered-bytes must hold one body of --max-message-bytes, {largest}")
    return Settings(**{field.name: values[field.name] for field in fields(Settings)})


def _add(parser: argparse.ArgumentParser, option: _Option) -> None:
    # Defaults are kept out of argparse, so that what was not given can be told from what was.
    shown = "" if option.default in (None, "", False, ()) else f" (default: {option.default})"
    text = (option.help + shown).replace("%", "%%")
    if option.parse is _flag:
        parser.add_argument(
            *option.names, action="store_true", default=argparse.SUPPRESS, help=text
        )
    else:
        parser.add_argument(
            *option.names,
            action="extend" if option.repeatable else "store",
            type=option.parse,
            default=argparse.SUPPRESS,
            metavar=option.metavar or option.field.upper(),
            help=text,
        )


def _from_environment(
    parser: argparse.ArgumentParser, environment: Mapping[str, str]
) -> dict[str, Any]:
    values = {}
    for option in _OPTIONS:
        # Empty is unset, as compose files write it.
        if environment.get(option.variable):
            try:
                values[option.field] = option.parse(environment[option.variable])
            except argparse.ArgumentTypeError as error:
                parser.error(f"{option.variable}: {error}")
    return values
