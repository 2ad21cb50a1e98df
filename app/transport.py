"""A connection's socket, plain or with TLS, behind one interface. Loop thread only; never blocks.

TLS here is `ssl.SSLSocket` in non-blocking mode, not `SSLObject` between two memory BIOs: the kernel's
buffers stay the only ones, so there is no ciphertext of our own to bound, to flush and to account
for when a peer reads slowly. The price, two system calls a record of 16 KiB, is small beside the
cipher. Two things of TLS do not fit a selector, and both end here:

- A read may have to wait until the socket can be written, and the reverse: `read_when` and
  `write_when` say for what to watch if one wants to read or to write.
- What was decrypted is invisible to the selector: `receive` therefore takes whole records, and what
  it still holds back (an end that came behind the last bytes) is announced by `pending`.

The handshake is a state before all others (`handshaking`): while it lasts, watch for `read_when` and
call `handshake`. If it fails, the transport is a plain one again, of which nothing can be sent and
only dropped bytes be received: who wants the peer to see TLS's own alert lingers as after a reply.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Protocol as Interface

from app.loop import READ, WRITE

_RECORD_BYTES = 16_384
"""The most plain bytes in one TLS record (RFC 8446, section 5.1)."""


class Transport(Interface):
    """Bytes to and from one peer. Every method answers at once."""

    handshaking: bool
    """True until `handshake` has returned True: nothing may be received or sent yet."""
    read_when: int
    """The selector mask (READ or WRITE) at which `receive`, or `handshake`, gets on."""
    write_when: int
    """The same of `send`."""

    @property
    def pending(self) -> bool:
        """True if `receive` has something to say that no selector sees: ask again this turn."""

    def fileno(self) -> int:
        """What to register at a selector."""

    def handshake(self) -> bool:
        """Get on with it; True once it is done. Raises `OSError` where it failed."""

    def receive(self, count: int) -> bytes | None:
        """About `count` bytes (up to a record more), None if there are none now, b"" at the end.

        An end of the stream without TLS's own goodbye is an end all the same: what is missing then
        is noticed by the length that was announced. Raises `OSError` on a reset or broken records.
        """

    def send(self, data: memoryview) -> int:
        """How many bytes of `data`, which is not empty, were taken; 0 if it must wait.

        After a 0 the same bytes have to come again, in a view as long or longer. Raises `OSError`.
        """

    def shutdown_sending(self) -> None:
        """Tell the peer that no more comes. What is received from now on is only fit to drop."""

    def close(self) -> None:
        """Close the socket, without a word to the peer. May be said twice."""


class PlainTransport:
    """A socket as it is. Takes it over."""

    handshaking = False
    read_when = READ
    write_when = WRITE
    pending = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> bool:
        return True

    def receive(self, count: int) -> bytes | None:
        try:
            return self._socket.recv(count)
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def shutdown_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class TlsTransport:
    """The server's side of TLS over a socket. Takes it over.

    Raises `OSError` (the socket is closed then) where the peer is gone already.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        try:
            sock.setblocking(False)
            # SSLSocket would also take one that is not connected, and only fail later.
            sock.getpeername()
            self._socket = context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        except BaseException:
            sock.close()
            raise
        self.handshaking = True
        self.read_when = READ
        self.write_when = WRITE
        self._raw = False
        """Past TLS: what comes is dropped unread."""
        self._held: OSError | None = None
        """A fault that came behind bytes which had to be given out first."""
        self._ended = False

    @property
    def pending(self) -> bool:
        if self._raw or self.handshaking:
            return False
        return self._held is not None or self._ended or self._socket.pending() > 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> bool:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.read_when = READ
            return False
        except ssl.SSLWantWriteError:
            self.read_when = WRITE
            return False
        except OSError:
            self._give_up_tls()
            raise
        self.handshaking = False
        self.read_when = READ
        return True

    def receive(self, count: int) -> bytes | None:
        if self._raw:
            return self._receive_raw(count)
        pieces: list[bytes] = []
        left = count
        # Each call takes one record, or what is left of one: nothing decrypted stays behind.
        while left > 0 and not self._ended and self._held is None:
            try:
                data = self._socket.recv(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                self.read_when = READ
                break
            except ssl.SSLWantWriteError:
                self.read_when = WRITE
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except OSError as error:
                self._held = error
                break
            self.read_when = READ
            self._ended = not data
            pieces.append(data)
            left -= len(data)
        if received := b"".join(pieces):
            return received
        if self._held is not None:
            raise self._held
        return b"" if self._ended else None

    def send(self, data: memoryview) -> int:
        # One record at a time: OpenSSL wants a call that could not be finished again as it was.
        try:
            sent = self._socket.send(data[:_RECORD_BYTES])
        except ssl.SSLWantWriteError:
            self.write_when = WRITE
            return 0
        except ssl.SSLWantReadError:
            self.write_when = READ
            return 0
        self.write_when = WRITE
        return sent

    def shutdown_sending(self) -> None:
        if not self._raw and not self.handshaking:
            # Sends the goodbye; then it would wait for the peer's, which lingering does better. Where
            # the kernel has no room even for that, the end of the stream has to do.
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()
        self._give_up_tls()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _give_up_tls(self) -> None:
        self.handshaking = False
        self._raw = True
        self.read_when = READ
        self.write_when = WRITE

    def _receive_raw(self, count: int) -> bytes | None:
        try:
            # Past SSLSocket, whose own method decrypts.
            return socket.socket.recv(self._socket, count)
        except (BlockingIOError, InterruptedError):
            return None


def open_transport(sock: socket.socket, tls: ssl.SSLContext | None) -> Transport:
    """The transport for an accepted socket. Raises `OSError` (the socket is closed then)."""
    return PlainTransport(sock) if tls is None else TlsTransport(sock, tls)
