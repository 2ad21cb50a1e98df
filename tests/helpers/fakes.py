"""Stand-ins for the slow parts, and a native client, for the fast tests.

`FakeEngine` returns the number of its samples as the text, so that a test can match answers with
audio. `FakeDetector` takes loud samples for speech. `Node` has the real loop, server and worker
around them on a loopback port. `Client` implements the native protocol without `app`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import structlog

from app import build
from app.audio.source import OpenMedia
from app.audio.stream import AudioStream
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineAborted, ModelInfo
from app.messages import Segment, Transcript
from app.network.connection import Connection
from app.network.ports import Port
from app.network.timeouts import Timeouts
from app.output.lines import json_line
from app.output.stdout import StdoutSink
from app.protocols.base import Protocol
from app.protocols.native.protocol import NativeProtocol
from app.requests.outcomes import Observer
from app.requests.upload import Upload
from app.server import Limits, Reports
from app.storage.body import Body, in_memory
from app.storage.disk import Disk
from app.storage.spool import Spool
from app.worker.job import JobSettings

RATE = 16_000
HANG = 120.0
"""Seconds until a test gives up; no test measures time with it."""

UNHURRIED = Timeouts(header=600.0, body=600.0, idle=600.0, write=600.0)
"""For tests without timeouts: a busy machine needs seconds to open five hundred connections."""

Samples = npt.NDArray[np.float32]
ENGLISH = ModelInfo("fake.en", False, frozenset({"en"}))
MULTILINGUAL = ModelInfo("fake", True, frozenset({"en", "de", "haw"}))


def eventually(true: Callable[[], Any], what: str = "a condition") -> None:
    """Wait until `true()` holds; fail after HANG seconds."""
    end = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.005)


class Clock:
    """A stand-in for the module `time` that tests can advance: the fixture `clock`.

    Timeouts of minutes then pass at once, and none expires because the machine is busy.
    """

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def time(self) -> float:
        return time.time()

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds


# Audio.


def tone(count: int, rate: int = RATE, channels: int = 1, hertz: float = 440.0) -> Samples:
    """A loud sine; shape [count] or, with several channels, [count, channels]."""
    wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype(np.float32)
    return wave if channels == 1 else np.repeat(wave[:, None], channels, axis=1)


def pcm(count: int) -> bytes:
    """`count` samples of a tone as the body of RAW."""
    return (tone(count) * 32767).astype("<i2").tobytes()


def encoded(samples: Samples, rate: int = RATE, format: str = "WAV", **more: Any) -> bytes:
    """`samples` as a file of `format`, written by libsndfile."""
    # A real file instead of a buffer, because some writers seek back and truncate.
    with tempfile.TemporaryFile() as file:
        soundfile.write(file, samples, rate, format=format, **more)
        file.seek(0)
        return file.read()


def body_of(data: bytes) -> Body:
    """`data` as a body of the spool. The caller closes it."""
    return in_memory(data)


def decoded_body(data: bytes) -> Samples:
    """The samples of a body: float32, shape [n], 16 kHz."""
    body = body_of(data)
    try:
        stream = AudioStream(body.fileno(), body.size, None, 3600.0)
        blocks = []
        while (block := stream.read()) is not None:
            blocks.append(block)
        stream.close()
    finally:
        body.close()
    return np.concatenate(blocks)


# The engine and the detector.


def hypothesis_of(
    text: str, seconds: float, language: str = "en", logprob: float = -0.1
) -> Hypothesis:
    """One segment over all of `seconds`, or none if `text` is empty."""
    segments = (Segment(0.0, seconds, text, 0.9),) if text else ()
    return Hypothesis(segments=segments, language=language, logprob=logprob, end=seconds)


def transcript_of(text: str = "", **more: Any) -> Transcript:
    """A transcript of silence, except for the given fields."""
    fields: dict[str, Any] = {
        "text": text,
        "language": "en",
        "language_probability": None,
        "segments": (),
        "audio_seconds": 0.0,
        "queue_seconds": 0.0,
        "processing_seconds": 0.0,
        "model": "tiny.en-q8_0",
        "truncated": False,
        "encoder_context": 0,
        "passes": 0,
    }
    return Transcript(**{**fields, **more})


Answer = Callable[[Samples, DecodeOptions], Hypothesis]


def count_samples(samples: Samples, options: DecodeOptions) -> Hypothesis:
    language = "en" if options.language == "auto" else options.language
    return hypothesis_of(str(len(samples)), len(samples) / RATE, language)


class FakeEngine:
    """An engine that returns `answer`; `hold()` makes it wait in a window until `release()`."""

    def __init__(self, answer: Answer = count_samples) -> None:
        self.answer = answer
        self.calls: list[tuple[Samples, DecodeOptions]] = []
        self.aborted = False
        self._gate = threading.Event()
        self._gate.set()
        self._turns = threading.Semaphore(0)
        self.warmed_on: list[str] = []
        self.rests = 0

    def warm_up(self) -> None:
        self.warmed_on.append(threading.current_thread().name)

    def rest(self) -> None:
        self.rests += 1

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        self.calls.append((samples, options))
        # Either the gate is open, or `step` lets exactly one window through.
        end = time.monotonic() + HANG
        while not (self._gate.is_set() or self._turns.acquire(timeout=0.005)):
            assert time.monotonic() < end, "the test did not release the engine"
        if self.aborted:
            raise EngineAborted
        return self.answer(samples, options)

    def hold(self) -> None:
        self._gate.clear()

    def step(self) -> None:
        """Let one window through."""
        self._turns.release()

    def release(self) -> None:
        self._gate.set()

    def abort(self) -> None:
        self.aborted = True
        self.release()

    def wait_for_calls(self, count: int) -> None:
        eventually(lambda: len(self.calls) >= count, f"call {count} of the engine")


class FakeDetector:
    """A detector that takes loud samples for speech, and counts its calls."""

    def __init__(self, level: float = 0.05) -> None:
        self.level = level
        self.asked = 0
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def probability(self, chunk: Samples) -> float:
        assert chunk.dtype == np.float32
        assert 0 < len(chunk) <= 512
        self.asked += 1
        return 1.0 if float(np.sqrt(np.mean(chunk**2))) >= self.level else 0.0


# The framing.


RAW = {
    "byteorder": "little",
    "content-type": "audio/pcm",
    "content-encoding": "s16",
    "sample-rate": RATE,
    "channels": 1,
}
"""The header of `pcm()` without its length."""


def frame(header: dict[str, Any] | bytes, body: bytes = b"") -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!H", len(data)) + data + body


def message(body: bytes, **fields: Any) -> bytes:
    """A whole request with raw samples. Field names have underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return frame({**RAW, "content-length": len(body), **named}, body)


class Client:
    """One connection to a node."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(HANG)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def peer(self) -> str:
        """The node's name for this client."""
        return "{}:{}".format(*self.socket.getsockname())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, body: bytes, **fields: Any) -> None:
        self.send(message(body, **fields))

    def reply(self) -> dict[str, Any] | None:
        """Read the next reply; None at the end of the stream."""
        start = self._exactly(2, at_start=True)
        if not start:
            return None
        header = json.loads(self._exactly(struct.unpack("!H", start)[0]))
        assert header["content-type"] == "application/json"
        assert header["content-encoding"] == "utf-8"
        assert header["byteorder"] in ("little", "big")
        reply = json.loads(self._exactly(header["content-length"]))
        assert {"id", "status"} <= reply.keys()
        return reply

    def replies(self) -> list[dict[str, Any]]:
        """Read all replies up to the end of the stream."""
        return list(iter(self.reply, None))

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _exactly(self, count: int, at_start: bool = False) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                assert at_start
                assert not data, "the stream ended within a reply"
                return b""
            data += more
        return data


def text_or_code(reply: dict[str, Any] | None) -> str | None:
    """A reply in one word: its text, the code of its error, or its status."""
    if reply is None:
        return None
    if reply["status"] == "ok":
        return str(reply["text"])
    return str(reply["error"]["code"] if reply["status"] == "error" else reply["status"])


# The node.


class Lines:
    """A stdout that keeps its lines: a pipe, and a thread that reads it.

    While `flowing` is clear the pipe counts as full; once `broken` is set its reader is gone.
    """

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self._reader, self.writer = os.pipe()
        self._leaving = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        return self._leaving

    @broken.setter
    def broken(self, value: bool) -> None:
        self._leaving = value
        self._thread.join(HANG)

    def close(self) -> None:
        os.close(self.writer)
        self._thread.join(HANG)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        data = b""
        while not self._leaving:
            if not select.select([self._reader], [], [], 0.02)[0]:
                continue
            more = os.read(self._reader, 65_536)
            if not more:
                break
            *lines, data = (data + more).split(b"\n")
            self.written += [json.loads(line) for line in lines]
        os.close(self._reader)

    def of(self, request_id: str | None) -> list[dict[str, Any]]:
        return [line for line in list(self.written) if line["id"] == request_id]

    def wait_for(self, request_id: str | None) -> dict[str, Any]:
        """Wait for the line of that request and return it."""
        eventually(lambda: self.of(request_id), f"a line of {request_id} on stdout")
        return self.of(request_id)[0]


class Sink(StdoutSink):
    """The node's own sink, with a pipe that can count as full."""

    def __init__(self, disk: Disk, lines: Lines, on_broken: Callable[[], None]) -> None:
        super().__init__(disk, lines.writer, json_line, on_broken)
        self._lines = lines

    def wants_write(self) -> bool:
        return self._lines.flowing.is_set() and super().wants_write()


class Node:
    """The node with a fake engine, in threads of the test's process.

    `drain` and `kill` use signals, so it must be made on the main thread. `port` has further fields
    of the port.
    """

    SIGNAL = signal.SIGUSR1

    def __init__(
        self,
        engine: FakeEngine | None = None,
        *,
        model: ModelInfo = ENGLISH,
        max_body: int = 16 * 1024 * 1024,
        queue_size: int = 64,
        max_connections: int = 1000,
        drain_seconds: float = HANG,
        timeouts: Timeouts | None = None,
        make_spool: Callable[[Disk], Spool] | None = None,
        journal: Path | None = None,
        max_buffered_bytes: int = 1 << 30,
        reject_when_full: bool = False,
        authorize: Callable[[str | None], bool] = lambda _token: True,
        new_protocol: Callable[[], Protocol] | None = None,
        port: dict[str, Any] | None = None,
        reports: Reports = Reports(),  # noqa: B008
        observers: Sequence[Observer] = (),
        max_seconds: float = 3600.0,
        vad_threshold: float = 0.0,
        max_live: int = 16,
        media: OpenMedia | None = None,
        queue: build.QueueParts | None = None,
        only_queue: bool = False,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.lines = Lines()
        base = build.foundation(Path("/var/tmp"), journal, 1 << 62)
        if make_spool is not None:
            base = replace(base, spool=make_spool(base.disk))
        # A threshold of 0 takes all audio for speech, so that all of a body reaches the engine.
        settings = JobSettings(
            max_seconds, vad_threshold, "en", "", model.name, max_live=max_live, media=media
        )
        built = build.node(
            base,
            build.EngineParts(self.engine, model, self.engine.abort, FakeDetector, settings),
            Sink(base.disk, self.lines, lambda: self.server.shutdown.ask()),
            Limits(
                queue_size,
                max_buffered_bytes,
                max_connections,
                drain_seconds,
                reject_when_full,
                only_queue,
                timeouts or UNHURRIED,
            ),
            authorize=authorize,
            reports=reports,
            observers=observers,
            on_drain=lambda: None,
            queue=queue,
        )
        self.disk, self.sink, self.journal = built.disk, built.sink, built.journal
        self.queue = built.queue
        self.worker, self.server = built.worker, built.server
        self.cancelled: list[int] = []
        """The jobs that the worker should cancel."""
        self._note_cancelled()
        framed = lambda: NativeProtocol(max_body, lambda: f"made-{os.urandom(4).hex()}")  # noqa: E731
        native = Port("native", "127.0.0.1", 0, new_protocol or framed)
        self.port = self.server.listen(replace(native, **(port or {})))
        self._old_handler = signal.getsignal(self.SIGNAL)
        self.server.loop.handle_signals(self.SIGNAL)
        self._thread = threading.Thread(target=self.server.run, name="loop", daemon=True)
        self._clients: list[Client] = []
        self._stopped = False

    def _note_cancelled(self) -> None:
        cancel = self.worker.cancel

        def noted(number: int) -> None:
            self.cancelled.append(number)
            cancel(number)

        self.worker.cancel = noted  # type: ignore[method-assign]

    def start(self) -> None:
        self.worker.start()
        self.disk.start()
        self._thread.start()
        if self.queue is not None:
            self.queue.start()

    def connect(self, **more: Any) -> Client:
        client = Client(self.port, **more)
        self._clients.append(client)
        return client

    def ask(self, body: bytes, **fields: Any) -> list[dict[str, Any]]:
        """Send one request on a new connection; return all replies."""
        with self.connect() as client:
            client.request(body, **fields)
            return client.replies()

    def drain(self) -> None:
        # The signal goes to the main thread, because no other would wake it from a system call.
        signal.pthread_kill(threading.main_thread().ident or 0, self.SIGNAL)

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return list(self.server.connections.values())

    @property
    def uploads(self) -> list[Upload]:
        """The requests whose bodies are being received."""
        return list(self.server.pipeline.uploads.receiving.values())

    @property
    def waiting(self) -> list[Upload]:
        """The requests that wait for a place."""
        return self.server.pipeline.uploads.line.uploads

    @property
    def jobs(self) -> list[int]:
        """The requests in the worker."""
        return self.server.pipeline.dispatch.jobs

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait_until_stopped(self) -> None:
        eventually(lambda: not self.running, "the end of the loop")

    def stop(self) -> None:
        """End at once, regardless of work in progress. It may be called twice."""
        if self._stopped:
            return
        self._stopped = True
        self.lines.flowing.set()
        self.disk.nudge()
        self.engine.abort()
        for client in self._clients:
            client.close()
        while self.running:
            self.drain()
            self._thread.join(0.02)
        signal.signal(self.SIGNAL, self._old_handler)
        self.worker.stop()
        assert self.worker.join(HANG)
        assert self.disk.close(HANG)
        if self.queue is not None:
            self.queue.stop(HANG)
        self.lines.close()
        if self.journal is not None:
            self.journal.close(clean=True)


def failed_callbacks(entries: Iterable[structlog.typing.EventDict]) -> list[Any]:
    """Return the exceptions that the loop logged; there must be none."""
    return [entry for entry in entries if entry["event"] in ("a callback failed", "job failed")]
