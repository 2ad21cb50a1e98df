"""Requests for a WebSocket: the guards before it opens, and the answer that opens it.

The token is checked by the server. A page of another origin is refused here, because browsers ask
no permission before they open a WebSocket. Pure; loop thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.protocols.http import fixed
from app.protocols.http.answer import Answer, Headers
from app.protocols.http.head import Head
from app.protocols.http.replies import error
from app.protocols.http.routes import normal_path
from app.protocols.http.site import Site, SocketRoute, right_origin
from app.protocols.websocket.handshake import HandshakeError, Opening, is_upgrade, read_opening

# Programs with one address for files and for live audio, such as Obsidian's Whisper plugin.
_SAME = {"/v1/audio/transcriptions": "/v1/realtime"}


@dataclass(frozen=True, slots=True)
class PendingUpgrade:
    """A valid handshake for an address that has WebSockets."""

    opening: Opening
    route: SocketRoute

    @property
    def headers(self) -> Headers:
        """The headers of the answer, with a subprotocol only if the client offered it."""
        headers: Headers = (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", self.opening.accept),
        )
        chosen = self.opening.chosen(self.route.subprotocols)
        return headers if chosen is None else (*headers, ("Sec-WebSocket-Protocol", chosen))


def read_upgrade(head: Head, site: Site) -> PendingUpgrade | Answer | None:
    """Return the upgrade that a request asks for, the answer if it cannot be, or None if it asks
    for none. The caller has checked the `Host`."""
    # RFC 9110, section 7.8: a request of HTTP/1.0 cannot ask for it.
    if head.old or not is_upgrade(head.fields):
        return None
    try:
        opening = read_opening(head.method, head.path, head.query, head.fields)
    except HandshakeError as failed:
        version = (("Sec-WebSocket-Version", "13"),) if failed.status == 426 else ()
        return error(failed.status, "bad_header", failed.message, more=version)
    path = normal_path(opening.path)
    route = site.socket(_SAME.get(path, path))
    if route is None:
        return fixed.no_socket()
    if not right_origin(head, site):
        return fixed.wrong_origin()
    return PendingUpgrade(opening, route)
