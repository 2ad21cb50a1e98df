"""TLS as the settings describe it: one `ssl.SSLContext` for all connections.

TLS 1.2 and later, with authenticated encryption only. With a client authority, clients must present
one of its certificates; without one, clients need none. The context is made once, at the start, so
a new certificate requires a restart.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

import structlog

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Cipher suites of TLS 1.2: ephemeral keys and AEAD. TLS 1.3 has no others (RFC 9325, section
4.2)."""

_INCOMPATIBLE = frozenset({"NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
"""OpenSSL's reasons for a handshake with a client that is too old."""

_log = structlog.get_logger("tls")


class TlsError(Exception):
    """TLS cannot be set up; the message tells the user why."""


def server_context(
    cert: Path | None, key: Path | None, client_ca: Path | None
) -> ssl.SSLContext | None:
    """Return the context for these PEM files; None if there are none. Raises `TlsError`.

    `cert` is the node's certificate chain, `key` its private key, `client_ca` the authorities one
    of which must have signed a client's certificate.
    """
    if cert is None or key is None:
        if client_ca is not None:
            raise TlsError("--tls-client-ca requires --tls-cert and --tls-key")
        if key is not None:
            raise TlsError("--tls-key requires --tls-cert")
        if cert is not None:
            raise TlsError("--tls-cert requires its private key: set --tls-key")
        return None
    for path in (cert, key, client_ca):
        if path is not None:
            _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # A client that never reads (`reply: none`) would leave the tickets of TLS 1.3 in its socket.
    # Its close would then reset the connection and lose the last bytes of its audio.
    context.num_tickets = 0
    # Otherwise clients decide how often the node does the expensive part.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise TlsError(_why(error, cert, key)) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise TlsError(f"--tls-client-ca: {client_ca} contains no PEM certificate") from None
        context.verify_mode = ssl.CERT_REQUIRED
    if key.stat().st_mode & 0o004:
        _log.warning(
            "every user of this machine can read the private key; chmod o-r it", file=str(key)
        )
    return context


def log_failed_handshake(peer: str, error: OSError) -> None:
    """Log why the handshake with the client `peer` failed. The failure of an old client is a
    warning, because the client's own message does not give the reason; a scan of the port is none.
    """
    if isinstance(error, ssl.SSLError) and error.reason in _INCOMPATIBLE:
        _log.warning(
            "TLS handshake rejected: the client offers neither TLS 1.3 nor an AEAD suite of"
            " TLS 1.2; update its TLS library",
            peer=peer,
            reason=error.reason,
        )
    else:
        _log.debug("TLS handshake failed", peer=peer, error=str(error))


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from None


def _no_passphrase() -> NoReturn:
    # OpenSSL would ask on the terminal, where a service waits forever.
    raise TlsError("the private key is encrypted; decrypt it, the node cannot ask for a passphrase")


def _why(error: ssl.SSLError, cert: Path, key: Path) -> str:
    reason = error.reason or ""
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        return f"--tls-key: {key} does not belong to the certificate in {cert}"
    if "KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason:
        return (
            f"--tls-cert: {cert} is too weak for this system ({reason.replace('_', ' ').lower()})"
        )
    return f"--tls-cert, --tls-key: {cert} and {key} are not a PEM certificate and key"
