"""The queue that the settings ask for: credentials and TLS are read, the thread is prepared.

nats-py is imported only with `--queue`. Main thread, before the model is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from app.queue import names
from app.queue.credentials import CredentialsError, readable_by_others
from app.settings.settings import Settings

if TYPE_CHECKING:
    from app.queue.broker import Access
    from app.queue.thread import QueueThread

NewThread = Callable[[Callable[[], None], Callable[[], "str | None"]], "QueueThread"]

_log = structlog.get_logger("queue")


class QueueUnavailable(Exception):
    """The node cannot use the queue as it is set; the message says why and what to do."""


def access_of(settings: Settings) -> Access | None:
    """Read the files of the settings; None without a queue. Raises `QueueUnavailable`."""
    if not settings.queue:
        return None
    if importlib.util.find_spec("nats") is None:
        raise QueueUnavailable(
            "--queue needs the package nats-py: start the node with scripts/run, or run"
            " .venv/bin/pip install -r requirements-queue.txt"
        )
    from app.queue.broker import access

    path = settings.queue_credentials
    name = f"node-whisper {node_name()}"
    try:
        found = access(settings.queue, path, settings.queue_ca, owner="node", name=name)
    except CredentialsError as error:
        raise QueueUnavailable(f"--queue-credentials: {error}") from None
    except OSError as error:
        broken = isinstance(error, ssl.SSLError)
        reason = "it is not a PEM file with a certificate" if broken else error.strerror
        message = f"--queue-ca: cannot read {settings.queue_ca}: {reason}"
        raise QueueUnavailable(message) from None
    if path is not None and readable_by_others(path):
        _log.warning("other users can read the credentials; run chmod 600", file=str(path))
    return found


def thread_maker(settings: Settings, access: Access, model: str) -> NewThread:
    """Return what makes the queue thread of a node with `model`, as `build.QueueParts` wants it."""
    from app.queue.thread import QueueSettings, QueueThread

    wish = QueueSettings(
        access,
        model=names.queue_model(model),
        places=settings.queue_places,
        max_body=settings.max_message_bytes,
        node=node_name(),
    )
    return lambda wake, fault: QueueThread(wish, wake, fault)


def node_name() -> str:
    """Return the name of this node in results: several can run on one host."""
    return f"{socket.gethostname()}:{os.getpid()}"
