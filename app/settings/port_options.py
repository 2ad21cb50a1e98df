"""The options of the ports: addresses, access, encryption, and what each protocol may do."""

from __future__ import annotations

from app.settings import types as values
from app.settings.option import Option

PORT_OPTIONS = (
    Option(
        ("--host",),
        "127.0.0.1",
        str,
        "address to listen on; 0.0.0.0 opens the node to the whole network",
    ),
    Option(
        ("--port",),
        56789,
        values.optional_port,
        "port of the native protocol; 0 picks a free one; off disables it, for a node that takes"
        " all its jobs from --queue",
    ),
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
        " if it is free, off disables it (default: off; scripts/run: auto)",
        "PORT",
    ),
    Option(
        ("--served-model-name",),
        (),
        values.names,
        "further names of the model in /v1/models; separate several by commas or repeat the option",
        "NAME",
        repeatable=True,
    ),
    Option(
        ("--strict-model",),
        False,
        values.flag,
        "reject requests that name another model, which otherwise are served by the loaded one",
    ),
    Option(
        ("--cors-origin",),
        (),
        values.origins,
        "origins of other web pages and programs that may use the HTTP port, such as"
        " https://example.com or app://obsidian.md; separate several by commas or repeat the"
        " option; * allows any page; null allows pages without an origin, which any site can make"
        " (default: none)",
        "ORIGIN",
        repeatable=True,
    ),
    Option(
        ("--trusted-proxy",),
        (),
        values.networks,
        "addresses or networks of reverse proxies before the HTTP and Vosk ports, whose"
        " X-Forwarded-For, -Proto and -Host are believed; separate several by commas or repeat the"
        " option (default: none)",
        "CIDR",
        repeatable=True,
    ),
    Option(
        ("--metrics-auth",),
        False,
        values.flag,
        "require the token at /metrics and /readyz too, if one is set",
    ),
    Option(
        ("--vosk-port",),
        None,
        values.optional_port,
        "a further port for clients of vosk-server, which the HTTP port also serves, at / and"
        " /vosk: 2700 by convention, 0 picks a free port, off disables it (default: off)",
        "PORT",
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
        "also send Wyoming transcripts in parts, each as soon as it is final, for long dictation;"
        " its audio is then not in the journal",
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
        ("--name",),
        "",
        values.name,
        "the node's name for Wyoming clients and --announce, to tell several nodes apart (default:"
        " node-whisper, the model and the machine)",
    ),
    Option(
        ("--task",),
        "transcribe",
        values.choice("transcribe", "translate"),
        "task of Wyoming requests, which cannot name one: transcribe, or translate into English",
        "TASK",
    ),
)
