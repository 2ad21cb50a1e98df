"""Measures the cost of thousands of idle connections: latency of a request, and memory.

Two nodes with the same options, one of them with the connections, transcribe the same short clip in
turn. Each connection has first sent a message that the node rejected, because the node closes
connections without any header. The node closes idle connections after its idle deadline (two
minutes); the result includes the number of connections that were open at the end.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import statistics
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmark import usage
from benchmark.corpus import Clip
from benchmark.engines import Node
from benchmark.node import NodeError
from benchmark.share import COMMAND_SECONDS

CONNECTIONS = 5_000
ROUNDS = 15
SPARE = 500
"""Descriptors in addition to the connections, here and in the node. The `--max-connections` of the
node exceeds their number by the same amount."""

_LENGTH = struct.Struct("!H")

_AT_ONCE = 256
"""Connections opened before the first answer: fewer than the backlog of a listening socket."""

_SECONDS = 60.0
"""Seconds until the measurement gives up on a node that does not answer."""


@dataclass(frozen=True)
class IdleCost:
    """Seconds are medians over the rounds. `ratio` is the median of beside / alone of each round.

    `connections` were opened, and `left` of them were still open after the last round.
    """

    connections: int
    left: int
    rounds: int
    alone_seconds: float
    beside_seconds: float
    ratio: float
    bytes_per_connection: float

    def text(self) -> str:
        """The result in words, as Markdown."""
        return (
            f"Beside {self.connections} idle connections ({self.left} of them open at the end) a "
            f"3 s command takes {self.beside_seconds * 1000:.0f} ms, and "
            f"{self.alone_seconds * 1000:.0f} ms without them: {self.ratio:.2f} times as long "
            f"(median of {self.rounds} alternating rounds). An idle connection costs "
            f"{self.bytes_per_connection / 1024:.1f} KiB of the node's memory."
        )


class IdleConnections:
    """`count` connections to `address`, each open after one rejected message.

    Raises `NodeError` if the node does not reject the message or closes the connection, and
    `OSError` if a connection fails.
    """

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self._sockets: list[socket.socket] = []
        try:
            while len(self._sockets) < count:
                self._open(address, min(_AT_ONCE, count - len(self._sockets)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def still_open(self) -> int:
        """The number of connections that the node has neither closed nor sent anything to."""
        poll = select.poll()
        for sock in self._sockets:
            poll.register(sock, select.POLLIN)
        return len(self._sockets) - len(poll.poll(0))

    def ask_again(self, every: int) -> None:
        """Send one more rejected message on every n-th connection. Raises like the constructor."""
        _refused(self._sockets[::every])

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _open(self, address: tuple[str, int], count: int) -> None:
        start = len(self._sockets)
        for _ in range(count):
            self._sockets.append(socket.create_connection(address, _SECONDS))
        _refused(self._sockets[start:])


def raise_descriptor_limit(wanted: int) -> bool:
    """Allow this process and its children `wanted` descriptors; return False if that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def measure(start: Callable[[Sequence[str]], Node], clips: Sequence[Clip]) -> IdleCost | None:
    """Measure the cost. `start` makes a node with further options. If the measurement fails, the
    reason goes to stderr and the result is None, so that earlier measurements are not lost."""
    try:
        return _measure(start, clips)
    except (NodeError, OSError) as error:
        print(f"Idle connections: {error}", file=sys.stderr)
        return None


def _measure(start: Callable[[Sequence[str]], Node], clips: Sequence[Clip]) -> IdleCost:
    low, high = COMMAND_SECONDS
    clip = next((clip for clip in clips if low <= clip.seconds <= high), None)
    if clip is None:
        raise NodeError("there is no clip of about 3 s")
    if not raise_descriptor_limit(CONNECTIONS + SPARE):
        raise NodeError(f"ulimit -Hn is below {CONNECTIONS + SPARE}")
    options = ["--max-connections", str(CONNECTIONS + SPARE)]
    with closing(start(options)) as alone, closing(start(options)) as beside:
        for node in (alone, beside):
            node.transcribe(clip.path)
        before = usage.memory(beside.pid).now
        with IdleConnections(beside.process.address, CONNECTIONS) as idle:
            grown = usage.memory(beside.pid).now - before
            seconds = [
                _pair(alone, beside, clip, beside_first=bool(number % 2))
                for number in range(ROUNDS)
            ]
            left = idle.still_open()
    return IdleCost(
        connections=CONNECTIONS,
        left=left,
        rounds=ROUNDS,
        alone_seconds=statistics.median(one for one, _ in seconds),
        beside_seconds=statistics.median(other for _, other in seconds),
        ratio=statistics.median(other / one for one, other in seconds),
        bytes_per_connection=grown * 2**20 / CONNECTIONS,
    )


def _pair(alone: Node, beside: Node, clip: Clip, beside_first: bool) -> tuple[float, float]:
    """Measure the seconds of one request without and with the idle connections."""
    if beside_first:
        other = beside.ask(clip.path).seconds
        return alone.ask(clip.path).seconds, other
    one = alone.ask(clip.path).seconds
    return one, beside.ask(clip.path).seconds


def _refused(sockets: Sequence[socket.socket]) -> None:
    """Send a message with an invalid encoding and no body on each; read the replies."""
    header = {
        "byteorder": sys.byteorder,
        "content-type": "audio/pcm",
        "content-encoding": "none",
        "content-length": 0,
        "connection": "keep-alive",
    }
    data = json.dumps(header).encode()
    for sock in sockets:
        sock.sendall(_LENGTH.pack(len(data)) + data)
    for sock in sockets:
        (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
        reply = json.loads(_exactly(sock, length))
        fields = json.loads(_exactly(sock, reply["content-length"]))
        if fields["error"]["code"] != "bad_field":
            raise NodeError(f"the node answered {fields}")


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = sock.recv(count, socket.MSG_WAITALL)
    if len(data) < count:
        raise NodeError("the node closed a connection that it should keep open")
    return data
