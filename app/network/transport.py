"""A connection's socket, plain or with TLS, behind one interface. Loop thread only; never blocks.

TLS here is an `ssl.SSLObject` between two memory BIOs, not a non-blocking `ssl.SSLSocket`: that one
shows a reset as an ordinary end (OpenSSL loses the error number), and whether a client reset its
connection decides whether its work is cancelled. So the socket's calls and their errors are ours,
and OpenSSL only turns bytes into bytes. What that asks for is bounded here: 16 KiB are read at a
time, and at most one record waits for the kernel to take it. Two things do not fit a selector:

- A read may have to wait until the socket can be written (an answer of TLS's own goes first):
  `read_when` says for what to watch if one wants to read.
- What has left the socket is invisible to the selector: `receive` therefore takes whole records,
  and what it still holds (an end, a fault, bytes that came with the handshake) is `pending`.

The handshake is a state before all others (`handshaking`): while it lasts, watch for `read_when`
and call `handshake`. If it fails, nothing can be sent any more, and what is received is only fit to
drop: who wants the peer to see TLS's own alert lingers as after a last reply.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Protocol as Interface

from app.network.loop import READ, WRITE

_RECORD_BYTES = 16_384
"""The most plain bytes in one TLS record (RFC 8446, section 5.1)."""


class Transport(Interface):
    """Bytes to and from one peer. Every method answers at once."""

    handshaking: bool
    """True until `handshake` has returned True: nothing may be received or sent yet."""

    @property
    def read_when(self) -> int:
        """The selector mask (READ or WRITE) at which `receive`, or `handshake`, gets on."""

    @property
    def pending(self) -> bool:
        """True if `receive` has something to say that no selector sees: ask again this turn."""

    def fileno(self) -> int:
        """What to register at a selector."""

    def handshake(self) -> bool:
        """Get on with it; True once it is done. Raises `OSError` where it failed."""

    def receive(self, count: int) -> bytes | None:
        """At most about `count` bytes (up to a record more), None if there are none now, b"" at the
        end.

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
    """The server's side of TLS over a socket. Takes it over."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = sock
        sock.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.handshaking = True
        self._unsent = b""
        """Made by TLS and not yet taken by the kernel."""
        self._promised = 0
        """So many of the bytes of the last `send` are in it or before it."""
        self._unread = False
        """Bytes came behind the handshake in the same packet."""
        self._ended = False
        self._fault: OSError | None = None
        """What broke the stream, behind bytes that had to be given out first."""
        self._raw = False
        """TLS is over: what comes is dropped."""

    @property
    def read_when(self) -> int:
        return WRITE if self._unsent else READ

    @property
    def pending(self) -> bool:
        if self._raw or self.handshaking:
            return False
        return self._unread or self._ended or self._fault is not None

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> bool:
        try:
            while self._flush():
                if self._shake_hands():
                    # The last bytes of it may be ours.
                    self.handshaking = not self._flush()
                    self._unread = self._incoming.pending > 0
                    return not self.handshaking
                if not self._flush():
                    return False
                data = self._receive_raw(_RECORD_BYTES)
                if data is None:
                    return False
                if not data:
                    raise ConnectionAbortedError("the peer left during the handshake")
                self._incoming.write(data)
        except OSError:
            self._give_up_tls()
            raise
        return False

    def receive(self, count: int) -> bytes | None:
        if self._raw:
            return self._receive_raw(count)
        pieces: list[bytes] = []
        if self._unread:
            self._unread = False
            self._decrypt(pieces)
        # Counted as it comes in: a record may hold a byte, or nothing but TLS's own business, and a
        # peer that sends such ones without end would never let us go.
        taken = 0
        while taken < count and not self._ended and self._fault is None:
            try:
                # What TLS has to answer goes first: a peer that makes it answer and never reads
                # must not fill our memory.
                data = self._receive_raw(_RECORD_BYTES) if self._flush() else None
            except OSError as error:
                self._fault = error
                break
            if data is None:
                break
            taken += len(data)
            self._ended = not data
            self._incoming.write(data)
            self._decrypt(pieces)
        if received := b"".join(pieces):
            return received
        if self._fault is not None:
            raise self._fault
        return b"" if self._ended else None

    def send(self, data: memoryview) -> int:
        if self._raw:
            raise BrokenPipeError("nothing is sent behind the end of TLS")
        if not self._flush():
            return 0
        if not self._promised:
            self._promised = self._tls.write(data[:_RECORD_BYTES])
            if not self._flush():
                # Taken only when the kernel has it all: else nobody would watch for the rest.
                return 0
        sent, self._promised = self._promised, 0
        return sent

    def shutdown_sending(self) -> None:
        with contextlib.suppress(OSError):
            if not self._raw and not self.handshaking:
                # Makes the goodbye, and then wants the peer's, which lingering waits for. Where the
                # kernel has no room even for ours, the end of the stream has to do.
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._flush()
        self._give_up_tls()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _shake_hands(self) -> bool:
        """One step on what is here; False if more is needed. Raises `OSError`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            # The alert that says why.
            with contextlib.suppress(OSError):
                self._flush()
            raise
        return True

    def _decrypt(self, pieces: list[bytes]) -> None:
        """Add all that the bytes in `_incoming` give; part of a record stays there."""
        while True:
            try:
                data = self._tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            except OSError as error:
                self._fault = error
                return
            if not data:
                self._ended = True
                return
            pieces.append(data)

    def _flush(self) -> bool:
        """Send what TLS has made; True if nothing is left. Raises `OSError`."""
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or self._outgoing.read()
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return False
            self._unsent = self._unsent[sent:]
        return True

    def _receive_raw(self, count: int) -> bytes | None:
        try:
            return self._socket.recv(count)
        except (BlockingIOError, InterruptedError):
            return None

    def _give_up_tls(self) -> None:
        self.handshaking = False
        self._raw = True
        self._unsent = b""


def open_transport(sock: socket.socket, tls: ssl.SSLContext | None) -> Transport:
    """The transport for an accepted socket."""
    return PlainTransport(sock) if tls is None else TlsTransport(sock, tls)
