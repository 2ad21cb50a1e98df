"""The table of options: names, defaults, what each may be, what `-h` says of it.

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
    """One option: a flag, and a variable of the same name. `parse` is of
    `app/settings/types.py`."""

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


_MANY = 1_000_000

OPTIONS = (
    Option(("-m", "--model"), "tiny.en", values.model, "a Whisper model by name, or a ggml file"),
    Option(("-lv", "--log-verbose"), False, values.flag, "log at debug level"),
    Option(
        ("--host",),
        "127.0.0.1",
        str,
        "address to listen on; 0.0.0.0 opens the node to the network, which is for you to decide",
    ),
    Option(("--port",), 56789, values.number(int, 0, 65535), "TCP port; 0 picks a free one"),
    Option(
        ("--token-file",),
        None,
        values.path,
        "requests have to show the token in this file's first line (default: the variable"
        " NODE_WHISPER_TOKEN, else none is asked for)",
        "FILE",
    ),
    Option(
        ("--tls-cert",),
        None,
        values.path,
        "encrypt: PEM file of the node's certificate with those up to its authority",
        "FILE",
    ),
    Option(("--tls-key",), None, values.path, "PEM file of that certificate's private key", "FILE"),
    Option(
        ("--tls-client-ca",),
        None,
        values.path,
        "let in only who shows a certificate of an authority in this PEM file",
        "FILE",
    ),
    Option(
        ("--http-port",),
        None,
        values.http_port,
        "a further port, for HTTP and the page to try the node with: 8080 by convention, 0 picks a"
        " free one, auto is 8080 if that is free, off is none (default: off)",
        "PORT",
    ),
    Option(
        ("--cors-origin",),
        (),
        values.origins,
        "web pages of other origins that may use the HTTP port, such as https://example.com, with"
        " commas or given again; * is any page anywhere (default: none)",
        "ORIGIN",
        repeatable=True,
    ),
    Option(
        ("--metrics-auth",),
        False,
        values.flag,
        "ask for the token at /metrics and /readyz too, where there is one",
    ),
    Option(
        ("--wyoming-port",),
        None,
        values.number(int, 0, 65535),
        "a second port, for Home Assistant: 10300 by convention, 0 picks a free one (default: off)",
        "PORT",
    ),
    Option(
        ("--wyoming-streaming",),
        False,
        values.flag,
        "send Wyoming transcripts piece by piece, too, as the windows of a recording are done",
    ),
    Option(
        ("--wyoming-open",),
        False,
        values.flag,
        "let Wyoming, which knows neither token nor TLS, out of this machine where the others have"
        " one",
    ),
    Option(
        ("--wyoming-allow",),
        (),
        values.networks,
        "who may connect there: addresses or networks, with commas or given again (default: all)",
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
        "engine threads (default: the processors this process may use)",
        "N",
    ),
    Option(
        ("--encoder-context",),
        "auto",
        values.encoder_context,
        f"how much of the encoder to use: auto, full, or positions up to {FULL}",
        "CONTEXT",
    ),
    Option(
        ("--language",),
        None,
        values.language,
        "language of requests that name none (default: auto for multilingual models, else en)",
        "CODE",
    ),
    Option(("--prompt",), "", values.prompt, "words to expect, for requests that bring no prompt"),
    Option(
        ("--keep-markers",),
        False,
        values.flag,
        "keep the model's markers of other sounds, such as [Music], which are no text otherwise",
    ),
    Option(
        ("--vad-threshold",),
        0.5,
        values.number(float, 0, 1),
        "probability that counts as speech; 0 takes everything for speech",
        "P",
    ),
    Option(
        ("--queue-size",),
        64,
        values.number(int, 1, _MANY),
        "requests admitted and unfinished; further ones wait unread",
        "N",
    ),
    Option(
        ("--max-connections",),
        1000,
        values.number(int, 1, _MANY),
        "open connections; further ones are told busy",
        "N",
    ),
    Option(
        ("--max-audio-seconds",),
        4 * 3600.0,
        values.number(float, 1, 7 * 86400),
        "longest recording taken",
        "S",
    ),
    Option(
        ("--max-message-bytes",),
        512 * 1024 * 1024,
        values.number(int, 1, 1 << 40),
        "largest body taken; 512 MiB are four hours of 16 kHz 16-bit samples",
        "N",
    ),
    Option(
        ("--max-buffered-bytes",),
        None,
        values.number(int, 1, 1 << 50),
        "bodies held at one time, in memory and in --spool-dir together; further ones wait unread"
        " (default: three of the largest: one worked on, one received, one of somebody else)",
        "N",
    ),
    Option(
        ("--when-full",),
        "wait",
        values.choice("wait", "reject"),
        "what happens to further requests: wait lets their senders wait unread, reject answers busy"
        " and says when to come back",
        "WHAT",
    ),
    Option(("--models-dir",), None, values.directory, "a further directory of models", "DIR"),
    Option(
        ("--spool-dir",),
        Path("/var/tmp"),
        values.writable_directory,
        "where bodies over 4 MiB wait; a disk, not RAM",
        "DIR",
    ),
    Option(
        ("--journal",),
        None,
        values.path,
        "write every accepted request down in this directory, and take up after a crash what is"
        " there; off by default, since SD cards wear",
        "DIR",
    ),
    Option(("--offline",), False, values.flag, "never touch the network"),
    Option(
        ("--output",),
        "auto",
        values.choice("auto", "text", "json"),
        "stdout as text or JSON lines; auto is text on a terminal",
        "KIND",
    ),
    Option(
        ("--log-format",), "console", values.choice("console", "json"), "the log on stderr", "KIND"
    ),
    Option(
        ("--drain-seconds",),
        8.0,
        values.number(float, 0, 3600),
        "how long to finish after SIGTERM; Docker kills after 10",
        "S",
    ),
)
