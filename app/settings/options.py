"""The table of options: names, defaults, value types and help texts.

Every default carries its reason in its help or beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.decoding.context import FULL
from app.settings import types as values

PREFIX = "NODE_WHISPER_"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: a flag, and a variable of the same name. `parse` is from
    `app/settings/types.py`."""

    names: tuple[str, ...]
    default: Any
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    repeatable: bool = False
    """Values of a repeated option are concatenated; `parse` returns a tuple."""

    @property
    def field(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.field.upper()


_MANY = 1_000_000

OPTIONS = (
    Option(("-m", "--model"), "tiny.en", values.model, "a Whisper model by name, or a ggml file"),
    Option(("-lv", "--log-verbose"), False, values.flag, "log at debug level"),
    Option(
        ("--host",),
        "127.0.0.1",
        str,
        "address to listen on; 0.0.0.0 opens the node to the whole network",
    ),
    Option(("--port",), 56789, values.number(int, 0, 65535), "TCP port; 0 picks a free one"),
    Option(
        ("--token-file",),
        None,
        values.path,
        "require the token in the first line of this file (default: the variable"
        " NODE_WHISPER_TOKEN; without either, no token is required)",
        "FILE",
    ),
    Option(
        ("--tls-cert",),
        None,
        values.path,
        "enable TLS: PEM file with the node's certificate and its chain",
        "FILE",
    ),
    Option(
        ("--tls-key",), None, values.path, "PEM file with the private key of --tls-cert", "FILE"
    ),
    Option(
        ("--tls-client-ca",),
        None,
        values.path,
        "require a client certificate signed by an authority in this PEM file",
        "FILE",
    ),
    Option(
        ("--http-port",),
        None,
        values.http_port,
        "port for HTTP and the web page: 8080 by convention, 0 picks a free port, auto takes 8080"
        " if it is free, off disables it (default: off)",
        "PORT",
    ),
    Option(
        ("--cors-origin",),
        (),
        values.origins,
        "origins of other web pages that may use the HTTP port, such as https://example.com;"
        " separate several by commas or repeat the option; * allows any page (default: none)",
        "ORIGIN",
        repeatable=True,
    ),
    Option(
        ("--metrics-auth",),
        False,
        values.flag,
        "require the token at /metrics and /readyz too, if one is set",
    ),
    Option(
        ("--wyoming-port",),
        None,
        values.optional_port,
        "port for Wyoming (Home Assistant): 10300 by convention, 0 picks a free port, off disables"
        " it (default: off)",
        "PORT",
    ),
    Option(
        ("--wyoming-streaming",),
        False,
        values.flag,
        "also send Wyoming transcripts in parts, as each window of a recording is done",
    ),
    Option(
        ("--wyoming-open",),
        False,
        values.flag,
        "accept remote Wyoming clients although the other ports require a token or TLS (Wyoming"
        " supports neither)",
    ),
    Option(
        ("--wyoming-allow",),
        (),
        values.networks,
        "addresses or networks that may connect to the Wyoming port; separate several by commas or"
        " repeat the option (default: all)",
        "CIDR",
        repeatable=True,
    ),
    Option(
        ("--announce",),
        False,
        values.flag,
        "announce the Wyoming port by mDNS; needs requirements-announce.txt",
    ),
    Option(
        ("--threads",),
        None,
        values.number(int, 1, 512),
        "engine threads (default: the number of processors this process may use)",
        "N",
    ),
    Option(
        ("--encoder-context",),
        "auto",
        values.encoder_context,
        f"number of encoder positions to compute per window: auto, full ({FULL}), or a number up to"
        f" {FULL}",
        "CONTEXT",
    ),
    Option(
        ("--language",),
        None,
        values.language,
        "language of requests that do not name one: a code, auto, or multi, which detects it in"
        " each window, for recordings in several languages (default: auto for multilingual models,"
        " en for English-only models)",
        "CODE",
    ),
    Option(
        ("--languages",),
        (),
        values.languages,
        "languages that detection chooses from, such as en,de; at most 16; separate several by"
        " commas or repeat the option (default: all that the model knows)",
        "CODES",
        repeatable=True,
    ),
    Option(
        ("--prompt",),
        "",
        values.prompt,
        "words to expect, for requests without a prompt of their own",
    ),
    Option(
        ("--keep-markers",),
        False,
        values.flag,
        "keep the model's markers of other sounds, such as [Music], in the text",
    ),
    Option(
        ("--vad-threshold",),
        0.5,
        values.number(float, 0, 1),
        "probability from which audio counts as speech; 0 treats everything as speech",
        "P",
    ),
    Option(
        ("--queue-size",),
        64,
        values.number(int, 1, _MANY),
        "requests admitted and unfinished; the node does not read further ones",
        "N",
    ),
    Option(
        ("--max-connections",),
        1000,
        values.number(int, 1, _MANY),
        "open connections; further connections receive error busy",
        "N",
    ),
    Option(
        ("--max-audio-seconds",),
        4 * 3600.0,
        values.number(float, 1, 7 * 86400),
        "longest recording accepted",
        "S",
    ),
    Option(
        ("--max-message-bytes",),
        512 * 1024 * 1024,
        values.number(int, 1, 1 << 40),
        "largest body accepted; 512 MiB are four hours of 16 kHz 16-bit samples",
        "N",
    ),
    Option(
        ("--max-buffered-bytes",),
        None,
        values.number(int, 1, 1 << 50),
        "bytes of bodies held at one time, in memory and in --spool-dir together; the node does not"
        " read further bodies; with --journal also the limit for repaired copies of them"
        " (default: three times --max-message-bytes)",
        "N",
    ),
    Option(
        ("--when-full",),
        "wait",
        values.choice("wait", "reject"),
        "policy when the node is at capacity: wait leaves further requests unread, reject answers"
        " busy with the time after which to retry",
        "POLICY",
    ),
    Option(
        ("--models-dir",),
        None,
        values.directory,
        "an additional directory to search for models",
        "DIR",
    ),
    Option(
        ("--spool-dir",),
        Path("/var/tmp"),
        values.writable_directory,
        "directory for bodies over 4 MiB; use a disk, not RAM",
        "DIR",
    ),
    Option(
        ("--journal",),
        None,
        values.path,
        "directory in which accepted requests are recorded, to be resumed after a crash;"
        " off by default because it wears SD cards",
        "DIR",
    ),
    Option(("--offline",), False, values.flag, "never use the network to fetch a model"),
    Option(
        ("--output",),
        "auto",
        values.choice("auto", "text", "json"),
        "format of stdout: text or JSON lines; auto is text on a terminal",
        "KIND",
    ),
    Option(
        ("--log-format",),
        "console",
        values.choice("console", "json"),
        "format of the log on stderr",
        "KIND",
    ),
    Option(
        ("--drain-seconds",),
        8.0,
        values.number(float, 0, 3600),
        "time to finish accepted requests after SIGTERM; Docker kills after 10 s",
        "S",
    ),
)
