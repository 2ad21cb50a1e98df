"""The reason of a failed connection in words, with the remedy."""

from __future__ import annotations

import ssl
from collections.abc import Sequence


def explain(error: BaseException, urls: Sequence[str]) -> str:
    """Return one line for a person about a failed connection: the reason, then the remedy."""
    where = ", ".join(urls)
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {where} is not valid ({error.verify_message}): name its authority"
            " with --queue-ca, and use the host name of the certificate"
        )
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {where} ({error.reason or error}): check --queue and the broker"
    if "authorization violation" in text.lower():
        return f"{where} rejects the credentials: check --queue-credentials and the broker's users"
    reason = getattr(error, "strerror", None) or text or type(error).__name__
    return f"cannot reach {where} ({reason}): check --queue, the broker and any firewall"
