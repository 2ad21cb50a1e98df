"""app/network/transport.py over real loopback connections, driven as a selector would."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import Certificates

from app.network.loop import READ, WRITE
from app.network.tls import server_context
from app.network.transport import PlainTransport, TlsTransport, Transport, open_transport

HANG = 30.0
MIB = 1024 * 1024

Pair = tuple[Transport, socket.socket]


@pytest.fixture
def connected() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make the two ends of a TCP connection, ours first."""
    ends: list[socket.socket] = []

    def connect() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        theirs.settimeout(HANG)
        ends.extend((ours, theirs))
        return ours, theirs

    yield connect
    for end in ends:
        end.close()


@pytest.fixture
def plain(connected: Any) -> Iterator[Pair]:
    ours, theirs = connected()
    transport = open_transport(ours, None)
    yield transport, theirs
    transport.close()


@pytest.fixture
def context(certificates: Certificates) -> ssl.SSLContext:
    made = server_context(*certificates.node, None)
    assert made is not None
    return made


@pytest.fixture
def tls(connected: Any, context: ssl.SSLContext, certificates: Certificates) -> Iterator[Pair]:
    """A connection after its handshake; the client is a blocking SSLSocket."""
    ours, theirs = connected()
    transport = open_transport(ours, context)
    peer = shake(transport, theirs, certificates.trusting())
    yield transport, peer
    peer.close()
    transport.close()


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest) -> Pair:
    made: Pair = request.getfixturevalue(request.param)
    return made


def shake(
    transport: Transport, theirs: socket.socket, context: ssl.SSLContext, **more: Any
) -> ssl.SSLSocket:
    """Run the handshake of both sides. Raises the client's error if there is one, else ours."""
    results: list[ssl.SSLSocket | BaseException] = []

    def connect() -> None:
        try:
            results.append(context.wrap_socket(theirs, server_hostname="localhost", **more))
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    ours: OSError | None = None
    try:
        until_done(transport, transport.handshake)
    except OSError as error:
        ours = error
        transport.shutdown_sending()
    thread.join(HANG)
    (theirs_made,) = results
    if isinstance(theirs_made, BaseException):
        raise theirs_made
    if ours is not None:
        theirs_made.close()
        raise ours
    return theirs_made


def until_done(transport: Transport, step: Callable[[], Any], mask: int | None = None) -> Any:
    """Call `step` until it has a result, and wait for the socket in between."""
    end = time.monotonic() + HANG
    while True:
        result = step()
        if result not in (None, 0, False):
            return result
        assert time.monotonic() < end, "timed out waiting for a result"
        wanted = mask if mask is not None else transport.read_when
        readers = [transport] if wanted & READ else []
        writers = [transport] if wanted & WRITE else []
        select.select(readers, writers, [], HANG)


def receive(transport: Transport, count: int = 262_144) -> bytes:
    """Receive the next bytes, b"" at the end."""
    end = time.monotonic() + HANG
    while (data := transport.receive(count)) is None:
        assert time.monotonic() < end, "timed out waiting for bytes"
        select.select([transport], [], [], HANG)
    return data


def receive_all(transport: Transport) -> bytes:
    pieces = []
    while data := receive(transport):
        pieces.append(data)
    return b"".join(pieces)


def receive_until(transport: Transport, total: int) -> bytes:
    data = b""
    while len(data) < total:
        piece = receive(transport)
        assert piece, "the stream ended"
        data += piece
    return data


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Both kinds.


def test_receive_returns_none_data_and_end(pair: Pair) -> None:
    transport, peer = pair
    assert not transport.handshaking
    assert transport.receive(100) is None
    assert not transport.pending
    peer.sendall(b"something")
    assert receive_until(transport, 9) == b"something"
    assert transport.receive(100) is None
    peer.shutdown(socket.SHUT_WR)  # TLS without close_notify
    assert receive(transport) == b""
    assert receive(transport) == b""


def test_both_directions_work_at_once(pair: Pair) -> None:
    transport, peer = pair
    there, back = os.urandom(3 * MIB + 1), os.urandom(5 * MIB + 1)
    got: list[bytes] = []

    def talk() -> None:
        # A blocking client that writes everything before it reads, so that our writing must wait.
        peer.sendall(there)
        data = bytearray()
        while len(data) < len(back):
            data += peer.recv(MIB)
        got.append(bytes(data))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    unsent, received = memoryview(back), bytearray()
    while unsent or len(received) < len(there):
        readers = [transport] if transport.read_when & READ else []
        writers = [transport] if unsent else []
        assert any(select.select(readers, writers, [], HANG)[:2])
        if unsent:
            unsent = unsent[transport.send(unsent) :]
        received += transport.receive(65_536) or b""
    thread.join(HANG)
    assert received == there
    assert got == [back]


def test_send_waits_for_a_client_that_does_not_read(pair: Pair) -> None:
    transport, peer = pair
    data = memoryview(os.urandom(16 * MIB))
    total = 0
    while sent := transport.send(data[total:]):
        total += sent
    assert 0 < total < len(data)
    got = bytearray()
    while len(got) < total:
        got += peer.recv(MIB)
    # Bytes that were not accepted are sent again from the same position.
    more = 0
    while more < MIB:
        sent = until_done(transport, lambda at=total + more: transport.send(data[at:]), WRITE)
        more += sent
        while len(got) < total + more:
            got += peer.recv(MIB)
    assert got == data[: total + more]


def test_receive_raises_after_a_reset(pair: Pair) -> None:
    transport, peer = pair
    reset(peer)
    with pytest.raises(ConnectionResetError):
        receive(transport)


def test_shutdown_sends_a_clean_end_and_input_is_drained(pair: Pair) -> None:
    transport, peer = pair
    assert transport.send(memoryview(b"last words")) == 10
    transport.shutdown_sending()
    if isinstance(peer, ssl.SSLSocket):
        peer.suppress_ragged_eofs = False
    assert peer.recv(100) == b"last words"
    assert peer.recv(100) == b""
    peer.sendall(b"more")
    peer.shutdown(socket.SHUT_RDWR)
    while receive(transport):
        pass
    transport.close()
    transport.close()


def test_shutdown_and_close_ignore_a_lost_client(pair: Pair) -> None:
    transport, peer = pair
    reset(peer)
    select.select([transport], [], [], HANG)
    transport.shutdown_sending()
    transport.close()


# Plain.


def test_transport_without_a_context_is_plain(connected: Any) -> None:
    ours, _ = connected()
    transport = open_transport(ours, None)
    assert isinstance(transport, PlainTransport)
    assert transport.handshake()
    assert transport.read_when == READ
    assert transport.fileno() == ours.fileno()


# TLS.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions_accepted(
    connected: Any, context: ssl.SSLContext, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    assert transport.handshaking
    assert not transport.handshake()
    client = certificates.trusting()
    client.minimum_version = client.maximum_version = version
    with shake(transport, theirs, client) as peer:
        assert not transport.handshaking
        assert peer.version() == version.name.replace("_", ".")
        peer.sendall(b"hello")
        assert receive_until(transport, 5) == b"hello"
    transport.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_tls_versions_are_rejected(
    connected: Any, context: ssl.SSLContext, certificates: Certificates
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    client = certificates.trusting()
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    # The client's error comes from our alert, so it did offer the old version.
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        shake(transport, theirs, client)
    transport.close()


def test_handshake_in_single_bytes_succeeds(
    connected: Any, context: ssl.SSLContext, certificates: Certificates
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = certificates.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    done, calls = False, 0
    while not done or transport.handshaking:
        if not done:
            try:
                peer.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
        for byte in outgoing.read():
            theirs.sendall(bytes([byte]))
            assert transport.read_when == READ
            select.select([transport], [], [], HANG)
            transport.handshake()
            calls += 1
        if not done:
            incoming.write(theirs.recv(65_536))
    assert calls > 100
    transport.close()


def test_last_bytes_and_close_notify_in_one_packet(tls: Pair) -> None:
    transport, peer = tls
    assert isinstance(peer, ssl.SSLSocket)
    peer.sendall(b"a")
    peer.sendall(b"b" * 20_000)
    # close_notify while the TCP connection stays open: the selector will never report an end.
    peer.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()
    time.sleep(0.2)  # Some of it has arrived; the rest follows below.
    assert receive(transport, 1) == b"a"
    data = b""
    while len(data) < 20_000:
        data += receive(transport)
    if not transport.pending:
        select.select([transport], [], [], HANG)
    assert receive(transport) == b""


def test_decrypted_input_is_pending(tls: Pair) -> None:
    transport, peer = tls
    assert isinstance(peer, ssl.SSLSocket)
    got = b""
    peer.setblocking(False)
    peer.sendall(b"x" * 100)
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()
    while len(got) < 100:
        # Wait for all of it, 100 bytes and close_notify, then receive it in one call.
        time.sleep(0.2)
        got += transport.receive(262_144) or b""
    end = time.monotonic() + HANG
    while not transport.pending and time.monotonic() < end:
        assert transport.receive(262_144) in (None, b"")
        time.sleep(0.01)
    assert select.select([transport], [], [], 0)[0] == []
    assert transport.pending
    assert receive(transport) == b""


def test_thousands_of_tiny_records_arrive(tls: Pair) -> None:
    transport, peer = tls
    for number in range(3000):
        peer.sendall(struct.pack("!H", number))
    data = b""
    while len(data) < 6000:
        # Only whole records: no decrypted bytes remain that a selector cannot see.
        data += receive(transport, 7)
        assert not transport.pending
    assert data == b"".join(struct.pack("!H", number) for number in range(3000))


def test_tiny_records_do_not_block_the_loop(tls: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts bytes on the wire, which are at least 22 for each plain byte."""
    transport, peer = tls
    assert isinstance(transport, TlsTransport)
    for _ in range(4000):
        peer.send(b"x")
    read: list[int] = []
    recv = socket.socket.recv

    def counted(sock: socket.socket, most: int, flags: int = 0) -> bytes:
        data = recv(sock, most, flags)
        read.append(len(data))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "recv", counted)
        data = receive(transport, 20_000)
    assert 0 < len(data) < 3000
    assert sum(read) < 20_000 + 16_384
    while len(data) < 4000:
        data += receive(transport)
    assert data == b"x" * 4000


def test_broken_records_raise_after_the_data_before_them(tls: Pair) -> None:
    transport, peer = tls
    peer.sendall(b"good")
    socket.socket.sendall(peer, b"\x17\x03\x03\x00\x20" + bytes(32))
    time.sleep(0.2)
    assert receive(transport) == b"good"
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            receive(transport)


def test_client_that_never_reads_loses_nothing_by_closing(
    connected: Any, context: ssl.SSLContext, certificates: Certificates
) -> None:
    """With unread session tickets in its socket, its close would send a reset."""
    ours, theirs = connected()
    transport = open_transport(ours, context)
    peer = shake(transport, theirs, certificates.trusting())
    data = os.urandom(MIB)
    thread = threading.Thread(target=lambda: (peer.sendall(data), peer.close()))
    thread.start()
    assert receive_all(transport) == data
    thread.join(HANG)
    transport.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x7b" + b'{"content-length": 5}',
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(64),
        b"\x16\x03",
    ],
    ids=["framed", "http", "noise", "half"],
)
def test_plain_bytes_fail_the_handshake(
    connected: Any, context: ssl.SSLContext, sent: bytes
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=r"."):
        until_done(transport, transport.handshake)
    assert not transport.handshaking
    with pytest.raises(BrokenPipeError):
        transport.send(memoryview(b"x"))
    # The rest can be drained, so that the close does not send a reset before the alert arrives.
    while receive(transport):
        pass
    transport.shutdown_sending()
    assert len(theirs.recv(1000)) in (0, 7)  # an unencrypted alert
    transport.close()


@pytest.mark.parametrize("bytes_before", [0, 3])
def test_reset_during_the_handshake_raises(
    connected: Any, context: ssl.SSLContext, bytes_before: int
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    assert not transport.handshake()
    theirs.sendall(b"\x16\x03\x01"[:bytes_before])
    reset(theirs)
    with pytest.raises(OSError, match=r"."):
        until_done(transport, transport.handshake)
    transport.shutdown_sending()
    transport.close()


def test_client_lost_before_the_handshake_raises(connected: Any, context: ssl.SSLContext) -> None:
    ours, theirs = connected()
    reset(theirs)
    select.select([ours], [], [], HANG)
    transport = TlsTransport(ours, context)
    with pytest.raises(ConnectionResetError):
        transport.handshake()
    transport.close()


def test_bytes_in_the_packet_of_the_handshake_arrive(
    connected: Any, context: ssl.SSLContext, certificates: Certificates
) -> None:
    ours, theirs = connected()
    transport = open_transport(ours, context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = certificates.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        peer.do_handshake()
    theirs.sendall(outgoing.read())
    for _ in range(2):
        select.select([transport], [], [], 0.2)
        assert not transport.handshake()
    done = False
    while not done:
        incoming.write(theirs.recv(65_536))
        try:
            peer.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
    peer.write(b"at once")
    theirs.sendall(outgoing.read())
    assert until_done(transport, transport.handshake)
    assert select.select([transport], [], [], 0)[0] == []
    assert transport.pending
    assert transport.receive(100) == b"at once"
    assert not transport.pending
    assert transport.receive(100) is None
    transport.close()


def test_broken_pipe_differs_from_a_reset(pair: Pair) -> None:
    """The client closed normally. The first send causes a reset, and the second fails with it."""
    transport, peer = pair
    peer.shutdown(socket.SHUT_RDWR)
    peer.close()
    select.select([transport], [], [], HANG)

    def reply_again_and_again() -> None:
        while True:
            transport.send(memoryview(b"a reply"))
            time.sleep(0.01)

    with pytest.raises(BrokenPipeError):
        reply_again_and_again()
