"""The secrets and certificates that the settings name: token, TLS, and access to the broker.

Main thread, before the model is loaded.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.network.access_token import AccessToken, AccessTokenError, read_token
from app.network.tls import TlsError, server_context
from app.settings.settings import Settings
from app.startup import queue, wyoming_port

if TYPE_CHECKING:
    from app.queue.broker import Access


class Unprotected(Exception):
    """A file cannot be used, or a port would be open that should not be; for the user."""


@dataclass(frozen=True, slots=True)
class Protection:
    """`tls` is None without encryption, `broker` without a queue."""

    access_token: AccessToken
    tls: ssl.SSLContext | None
    broker: Access | None


def protection(settings: Settings, environment: Mapping[str, str]) -> Protection:
    """Read the files. Raises `Unprotected`."""
    try:
        access_token = AccessToken(read_token(settings.token_file, environment))
        tls = server_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        broker = queue.access_of(settings)
    except (AccessTokenError, TlsError, queue.QueueUnavailable) as error:
        raise Unprotected(error) from error
    if wrong := wyoming_port.fault(settings, protected=tls is not None or not access_token.open):
        raise Unprotected(wrong)
    return Protection(access_token, tls, broker)
