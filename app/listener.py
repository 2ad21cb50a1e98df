"""A listening socket: accepts a few connections a turn, and pauses when there are no descriptors.

Gives each new socket to its owner and forgets it. Loop thread only.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

from app.loop import READ, Loop

_BACKLOG = 1_024
_ACCEPTS_PER_TURN = 64
_PAUSE_SECONDS = 0.5
"""Out of descriptors: the socket would be ready again at once, for ever."""

_log = structlog.get_logger("listener")

Greet = Callable[[socket.socket, Any], None]
"""Takes over a socket and its peer's address."""


class Listener:
    """Listens on `host` and `port`, 0 for a free one. Raises `OSError`."""

    def __init__(self, loop: Loop, host: str, port: int, greet: Greet) -> None:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._loop = loop
        self._greet = greet
        self._socket = socket.socket(family, kind, proto)
        self._closed = False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind(address)
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        loop.watch(self._socket, READ, self._accept)

    def close(self) -> None:
        """Take no further connections; may be said twice."""
        if not self._closed:
            self._closed = True
            self._loop.watch(self._socket, 0, self._accept)
            self._socket.close()

    def _accept(self, _mask: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("cannot accept", error=str(error))
                self._loop.watch(self._socket, 0, self._accept)
                self._loop.call_at(time.monotonic() + _PAUSE_SECONDS, self._resume)
                return
            self._greet(sock, address)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.watch(self._socket, READ, self._accept)
