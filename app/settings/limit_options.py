"""The limits: of requests, connections, audio and bytes."""

from __future__ import annotations

from app.settings import types as values
from app.settings.option import MANY, Option

LIMIT_OPTIONS = (
    Option(
        ("--queue-size",),
        64,
        values.number(int, 1, MANY),
        "requests of all ports and of --queue that are admitted and unfinished; the node does not"
        " read further ones",
        "N",
    ),
    Option(
        ("--max-connections",),
        1000,
        values.number(int, 1, MANY),
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
        ("--max-live",),
        16,
        values.number(int, 1, MANY),
        "utterances of live streams in progress at one time; silent streams do not count, and one"
        " client gets at most three quarters",
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
)
