"""The node's share of the latency of a command, and its speed in receiving bytes."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.corpus import Clip
from benchmark.engines import Node
from benchmark.node import request

COMMAND_SECONDS = (2.5, 4.0)
"""The length of a command: about 3 s."""

BODY_BYTES = 100_000_000


@dataclass(frozen=True)
class Share:
    """Round trip minus the reply's processing_seconds, over commands of about 3 s."""

    clips: int
    median_round_trip: float
    median_beyond_processing: float
    worst_beyond_processing: float
    median_queue: float


@dataclass(frozen=True)
class Ingest:
    """Seconds for one large body: to the node until it is accepted, and to a bare sink."""

    bytes: int
    node_seconds: float
    sink_seconds: float


def of_latency(node: Node, clips: Sequence[Clip], rounds: int) -> Share | None:
    """Measure the overhead; None if the corpus has no clip of that length."""
    low, high = COMMAND_SECONDS
    chosen = [clip for clip in clips if low <= clip.seconds <= high]
    if not chosen:
        return None
    trips: list[float] = []
    beyond: list[float] = []
    queued: list[float] = []
    for _ in range(rounds):
        for clip in chosen:
            reply = node.ask(clip.path)
            trips.append(reply.seconds)
            beyond.append(reply.seconds - reply.fields["processing_seconds"])
            queued.append(reply.fields["queue_seconds"])
    return Share(
        len(chosen),
        statistics.median(trips),
        statistics.median(beyond),
        max(beyond),
        statistics.median(queued),
    )


def of_ingest(node: Node, rounds: int = 3) -> Ingest:
    """Measure the upload of a body without audio, which is received whole and costs no decoding."""
    body = bytes(BODY_BYTES)
    there: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        there.append(request(node.process.address, body, "flac", reply="accepted").seconds)
        bare.append(_into_sink(body))
    return Ingest(BODY_BYTES, statistics.median(there), statistics.median(bare))


def _into_sink(body: bytes) -> float:
    """Send the same bytes over loopback to a thread that only counts them: the upper limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            buffer = bytearray(1 << 18)
            left = len(body)
            with connection:
                while left and (count := connection.recv_into(buffer)):
                    left -= count
                connection.sendall(b"!")

        thread = threading.Thread(target=take)
        thread.start()
        began = time.perf_counter()
        with socket.create_connection(listener.getsockname()) as connection:
            connection.sendall(body)
            connection.recv(1)
        took = time.perf_counter() - began
        thread.join()
    return took
