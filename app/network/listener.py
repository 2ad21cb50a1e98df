"""Listening sockets: accept a few connections a turn, and pause when descriptors run out.

A host name can resolve to several addresses of both families; `listen` opens a `Listener` for each,
on the same port. Each new socket is handed to the owner. Loop thread only.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

from app.network.loop import READ, Loop

_BACKLOG = 1_024
_ACCEPTS_PER_TURN = 64
PAUSE_SECONDS = 0.5
"""Pause after a failed accept. Without descriptors the socket would be ready again at once."""

_TRIES = 8
"""Attempts to find a port that is free at every address, if any port will do."""

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine does not have: `localhost` is often ::1 as well."""

_log = structlog.get_logger("listener")

Accept = Callable[[socket.socket, Any], None]
"""Takes over a socket and its client's address."""

_Address = tuple[int, Any]
"""A family and an address, as `getaddrinfo` gives them."""


class Listener:
    """Accepts from a listening socket, which it takes over."""

    def __init__(self, loop: Loop, sock: socket.socket, on_accept: Accept) -> None:
        self._loop = loop
        self._on_accept = on_accept
        self._socket = sock
        self._closed = False
        self.port = int(sock.getsockname()[1])
        loop.watch(sock, READ, self._accept)

    def close(self) -> None:
        """Accept no further connections. Can be called twice."""
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
                self._loop.call_at(time.monotonic() + PAUSE_SECONDS, self._resume)
                return
            self._on_accept(sock, address)
            if self._closed:
                return

    def _resume(self) -> None:
        if not self._closed:
            self._loop.watch(self._socket, READ, self._accept)


def listen(loop: Loop, host: str, number: int, on_accept: Accept) -> list[Listener]:
    """Listen at every address of `host`, on port `number` or, with 0, on a port that is free at all
    of them; return at least one listener. Raises `OSError`, and `UnicodeError` if the host name is
    invalid."""
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses: list[_Address] = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    return [Listener(loop, sock, on_accept) for sock in _open_somewhere(addresses, number, _TRIES)]


def _open_somewhere(addresses: list[_Address], number: int, tries: int) -> list[socket.socket]:
    try:
        return _open_all(addresses, number)
    except OSError as error:
        # The port is free at one address and in use at another; a different one may be free at all.
        if number != 0 or tries == 1 or error.errno != errno.EADDRINUSE:
            raise
    return _open_somewhere(addresses, number, tries - 1)


def _open_all(addresses: list[_Address], number: int) -> list[socket.socket]:
    """Return a listening socket for each family and address that this machine has."""
    # An IPv6 socket at `::` accepts IPv4 as well, unless an IPv4 socket is there for that.
    alone = len({family for family, _ in addresses}) == 1
    sockets: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "no address")
    try:
        for family, address in addresses:
            try:
                sockets.append(_open(family, (address[0], number, *address[2:]), alone))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                _log.debug("address not on this machine", address=address[0], error=str(error))
                missing = error
                continue
            number = int(sockets[0].getsockname()[1])
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise missing
    return sockets


def _open(family: int, address: Any, alone: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
