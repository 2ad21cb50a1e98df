"""A connection's socket, plain or with TLS, behind one interface. Loop thread only; never blocks.

TLS is an `ssl.SSLObject` between two memory BIOs, not a non-blocking `ssl.SSLSocket`. The latter
reports a reset as an ordinary end, since OpenSSL loses the error number; the node must tell them
apart, because a reset cancels a client's requests. So the socket is read and written here, and
OpenSSL only converts bytes. Memory is bounded: 16 KiB are read at a time, and at most one record
waits for the kernel. Two things do not fit a selector:

- A read may have to wait until the socket can be written, because an answer of TLS's own goes
  first: `read_when` is the event to watch for before a read.
- The selector does not see bytes that were read from the socket: `receive` therefore takes whole
  records, and is `pending` while it holds an end, an error, or bytes that came with the handshake.

The handshake is a state before all others (`handshaking`): while it lasts, watch for `read_when`
and call `handshake`. After it has failed nothing can be sent, and input should be discarded; a
connection that lingers then lets the client see the TLS alert.
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
    """Bytes to and from one client. No method blocks."""

    handshaking: bool
    """True until `handshake` has returned True: nothing may be received or sent yet."""

    @property
    def read_when(self) -> int:
        """The selector mask (READ or WRITE) at which `receive` or `handshake` can continue."""

    @property
    def pending(self) -> bool:
        """True if `receive` has something that no selector sees: call it again in this turn."""

    def fileno(self) -> int:
        """Return the descriptor for a selector."""

    def handshake(self) -> bool:
        """Continue the handshake; return whether it is done. Raises `OSError` if it failed."""

    def receive(self, count: int) -> bytes | None:
        """Return at most about `count` bytes (up to a record more), None if there are none now, b""
        at the end.

        An end without TLS's close_notify counts as an end: the declared length shows what is
        missing. Raises `OSError` on a reset or broken records.
        """

    def send(self, data: memoryview) -> int:
        """Return how many bytes of `data`, which is not empty, were taken; 0 if it must wait.

        After a 0 pass the same bytes again, in a view as long or longer. Raises `OSError`.
        """

    def shutdown_sending(self) -> None:
        """End the output. Input from now on should be discarded."""

    def close(self) -> None:
        """Close the socket without ending the output. Can be called twice."""


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
        """The number of bytes of the last `send` that are in `_unsent` or sent before it."""
        self._unread = False
        """Bytes arrived after the handshake in the same packet."""
        self._ended = False
        self._fault: OSError | None = None
        """The error of the stream, after bytes that are returned first."""
        self._raw = False
        """TLS has ended; input is discarded."""

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
                    # The last bytes of the handshake may be the node's.
                    self.handshaking = not self._flush()
                    self._unread = self._incoming.pending > 0
                    return not self.handshaking
                if not self._flush():
                    return False
                data = self._receive_raw(_RECORD_BYTES)
                if data is None:
                    return False
                if not data:
                    raise ConnectionAbortedError("the client left during the handshake")
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
        # Counted before decryption: a record may hold one byte or none, and a client that sends
        # such records without end would otherwise block the loop.
        taken = 0
        while taken < count and not self._ended and self._fault is None:
            try:
                # Answers of TLS's own go first: a client that makes TLS answer and never reads must
                # not fill the memory.
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
            raise BrokenPipeError("nothing can be sent after the end of TLS")
        if not self._flush():
            return 0
        if not self._promised:
            self._promised = self._tls.write(data[:_RECORD_BYTES])
            if not self._flush():
                # Taken only when the kernel has it all: otherwise nothing watches for the rest.
                return 0
        sent, self._promised = self._promised, 0
        return sent

    def shutdown_sending(self) -> None:
        with contextlib.suppress(OSError):
            if not self._raw and not self.handshaking:
                # Makes the close_notify and then wants the client's, which lingering waits for. If
                # the kernel has no space for it, the end of the stream has to suffice.
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._flush()
        self._give_up_tls()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _shake_hands(self) -> bool:
        """Process the input; return False if more is needed. Raises `OSError`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            # The alert with the reason.
            with contextlib.suppress(OSError):
                self._flush()
            raise
        return True

    def _decrypt(self, pieces: list[bytes]) -> None:
        """Add the plain bytes of all whole records in `_incoming`."""
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
        """Send the output of TLS; return whether nothing is left. Raises `OSError`."""
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
    """Return the transport of an accepted socket."""
    return PlainTransport(sock) if tls is None else TlsTransport(sock, tls)
