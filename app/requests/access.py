"""Access control of requests by the token that they carry."""

from __future__ import annotations

from collections.abc import Callable

from app.network.ports import Peer


class Access:
    """`authorize` returns whether a token is valid; None stands for no token."""

    def __init__(self, authorize: Callable[[str | None], bool]) -> None:
        self._authorize = authorize

    def allows(self, peer: Peer, token: str | None) -> bool:
        """Return whether a request of `peer` with `token` is served on the peer's port."""
        return not peer.port.needs_token or self._authorize(token)
