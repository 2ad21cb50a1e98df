"""The options of the queue."""

from __future__ import annotations

from app.settings import types as values
from app.settings.option import Option

QUEUE_OPTIONS = (
    Option(
        ("--queue",),
        (),
        values.broker_urls,
        "take jobs from this NATS JetStream broker: nats://HOST:PORT, or tls://HOST:PORT; separate"
        " the servers of one cluster by commas or repeat the option; needs requirements-queue.txt,"
        " which scripts/run installs (default: none)",
        "URL",
        repeatable=True,
    ),
    Option(
        ("--queue-credentials",),
        None,
        values.path,
        "file with the node's credentials at the broker: a .creds file, the seed of an nkey, or one"
        " line user:password",
        "FILE",
    ),
    Option(
        ("--queue-ca",),
        None,
        values.path,
        "PEM file with the authority of the broker's certificate; enables TLS (default: the"
        " system's authorities, for tls://)",
        "FILE",
    ),
    Option(
        ("--queue-places",),
        3,
        values.number(int, 1, 1000),
        "jobs of the queue held at a time, at most half of --queue-size; of two or more, one is"
        " kept for short jobs and one for long ones",
        "N",
    ),
)
