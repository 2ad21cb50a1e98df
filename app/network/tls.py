"""The node's side of TLS as the settings describe it: one `ssl.SSLContext` for all connections.

TLS 1.2 and up, with OpenSSL's choice of ciphers as the system configures it. Whoever has a
certificate of the client authority is let through; without such an authority no certificate is
asked for. Made once, at the start; a new certificate needs a new start.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

import structlog

_log = structlog.get_logger("tls")


class TlsError(Exception):
    """The settings make no TLS; the message is a sentence for the user."""


def server_context(
    cert: Path | None, key: Path | None, client_ca: Path | None
) -> ssl.SSLContext | None:
    """The context for these PEM files, None where none is given. Raises `TlsError`.

    `cert` is the node's certificate with those that lead to its authority, `key` its private key,
    `client_ca` the authorities whose certificates a client has to show.
    """
    if cert is None or key is None:
        if client_ca is not None:
            raise TlsError("--tls-client-ca is of no use without --tls-cert and --tls-key")
        if key is not None:
            raise TlsError("--tls-key is of no use without --tls-cert")
        if cert is not None:
            raise TlsError("--tls-cert needs its private key: --tls-key")
        return None
    for path in (cert, key, client_ca):
        if path is not None:
            _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that never reads (`reply: none`) would leave the tickets of TLS 1.3 in its socket,
    # and its close would then reset the connection under the last bytes of its audio.
    context.num_tickets = 0
    # The peer would decide how often we do the expensive part.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise TlsError(_why(error, cert, key)) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise TlsError(f"--tls-client-ca: {client_ca} holds no certificate in PEM") from None
        context.verify_mode = ssl.CERT_REQUIRED
    if key.stat().st_mode & 0o004:
        _log.warning("every user of this machine can read the private key", file=str(key))
    return context


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from None


def _no_passphrase() -> NoReturn:
    # OpenSSL's own way would be to ask on the terminal, and a service would wait there for ever.
    raise TlsError("the private key is encrypted; the node has nobody to ask for its passphrase")


def _why(error: ssl.SSLError, cert: Path, key: Path) -> str:
    reason = error.reason or ""
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        return f"--tls-key: {key} is not the key of the certificate in {cert}"
    if "KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason:
        return (
            f"--tls-cert: {cert} is too weak for this system ({reason.replace('_', ' ').lower()})"
        )
    return f"--tls-cert, --tls-key: {cert} and {key} are no certificate and key in PEM"
