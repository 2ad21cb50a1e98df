"""Wyoming over a real connection: the client of the `wyoming` package, and a node that listens.

The first tests have the real loop and server with a fake engine; the last has a real node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from fakes import FakeEngine, eventually, pcm
from fakes import Node as FakeNode
from node import HANG, JFK, Node, stopped_cleanly
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from app.decoding.transcriber import ModelInfo
from app.network.timeouts import Timeouts
from app.settings.settings import read
from app.startup.model import names_of
from app.startup.wyoming_port import wyoming_port

T = TypeVar("T")
FLUENT = ModelInfo("fake", True, frozenset({"en", "de"}))


def talk(port: int, conversation: Callable[[AsyncTcpClient], Awaitable[T]]) -> T:
    """Run `conversation` on a connection of the package's client; return its result."""

    async def run() -> T:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            return await asyncio.wait_for(conversation(client), HANG)

    return asyncio.run(run())


async def speak(
    client: AsyncTcpClient,
    audio: bytes,
    rate: int = 16_000,
    width: int = 2,
    channels: int = 1,
    **fields: Any,
) -> list[Event]:
    """Send `audio` like Home Assistant; return the events up to the transcript or the end."""
    await client.write_event(Transcribe(**fields).event())
    await client.write_event(AudioStart(rate, width, channels).event())
    for at in range(0, len(audio), 4096):
        chunk = AudioChunk(rate, width, channels, audio[at : at + 4096])
        await client.write_event(chunk.event())
    await client.write_event(AudioStop().event())
    events = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if Transcript.is_type(event.type):
            break
    return events


def text_of(events: list[Event]) -> str:
    assert Transcript.is_type(events[-1].type), events
    return Transcript.from_event(events[-1]).text


# With a fake engine, whose text is the number of its samples.


@pytest.fixture
def serve(make_node: Callable[..., FakeNode]) -> Callable[..., FakeNode]:
    """Start nodes whose only port speaks Wyoming."""

    def make(engine: FakeEngine | None = None, *arguments: str, **options: Any) -> FakeNode:
        settings = read(["--wyoming-port", "0", *arguments], {})
        port = wyoming_port(settings, FLUENT, names_of(settings, FLUENT))
        assert port is not None
        fields = {"name": port.name, "allowed": port.allowed}
        return make_node(
            engine, model=FLUENT, new_protocol=port.new_protocol, port=fields, **options
        )

    return make


def test_connection_carries_describe_ping_and_two_transcriptions(
    serve: Callable[..., FakeNode],
) -> None:
    node = serve()

    async def conversation(client: AsyncTcpClient) -> list[Any]:
        await client.write_event(Describe().event())
        info = Info.from_event(await client.read_event())
        first = await speak(client, pcm(1600), language="de")
        await client.write_event(Ping("are you there").event())
        pong = Pong.from_event(await client.read_event())
        second = await speak(client, pcm(3200))
        return [info.asr[0].models[0].languages, text_of(first), pong.text, text_of(second)]

    assert talk(node.port, conversation) == [["de", "en"], "1600", "are you there", "3200"]
    calls = [options.language for _, options in node.engine.calls]
    assert calls == ["de", "en"]
    eventually(lambda: [line["status"] for line in node.lines.written] == ["ok", "ok"])


def test_hints_reach_the_engine(serve: Callable[..., FakeNode]) -> None:
    node = serve()
    hints = {"transcript_names": ["Ada's lamp"], "transcript_terms": ["Zigbee"]}
    assert text_of(talk(node.port, lambda client: speak(client, pcm(1600), **hints))) == "1600"
    assert node.engine.calls[0][1].prompt == "Zigbee, Ada's lamp"


def test_streaming_sends_start_chunk_transcript_and_stop(serve: Callable[..., FakeNode]) -> None:
    node = serve(None, "--wyoming-streaming")

    async def conversation(client: AsyncTcpClient) -> list[str]:
        events = await speak(client, pcm(16_000))
        events.append(await client.read_event() or Event("none"))
        return [event.type for event in events]

    assert talk(node.port, conversation) == [
        "transcript-start",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]


def test_streaming_sends_a_finished_utterance_before_audio_stop(
    serve: Callable[..., FakeNode],
) -> None:
    """Speech of more than 12 s is cut in its next pause."""
    node = serve(None, "--wyoming-streaming")
    audio = pcm(13 * 16_000) + bytes(2 * 8_000) + pcm(16_000)

    async def conversation(client: AsyncTcpClient) -> list[Event]:
        for at in range(0, len(audio), 4096):
            await client.write_event(AudioChunk(16_000, 2, 1, audio[at : at + 4096]).event())
        events = [await client.read_event() for _ in range(2)]
        await client.write_event(AudioStop().event())
        while not events[-1] or events[-1].type != "transcript-stop":
            events.append(await client.read_event())
        return [event for event in events if event]

    events = talk(node.port, conversation)
    assert [event.type for event in events] == [
        "transcript-start",
        "transcript-chunk",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]
    chunks = "".join(event.data["text"] for event in events[1:3])
    assert chunks == events[3].data["text"]
    assert len(chunks.split()) == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"language": "fr"}, "bad_field"),
        ({"width": 3}, "bad_field"),
    ],
)
def test_invalid_request_gets_an_error_and_the_end(
    serve: Callable[..., FakeNode], fields: dict[str, Any], code: str
) -> None:
    """Home Assistant ignores error events: it waits for a transcript or for the end."""
    node = serve()
    (event,) = talk(node.port, lambda client: speak(client, pcm(60_000), **fields))
    assert Error.is_type(event.type)
    assert Error.from_event(event).code == code
    assert node.engine.calls == []
    # The next client is served.
    assert text_of(talk(node.port, lambda client: speak(client, pcm(1600)))) == "1600"


def test_no_audio_gives_an_empty_transcript_and_no_outcome(serve: Callable[..., FakeNode]) -> None:
    node = serve()
    assert text_of(talk(node.port, lambda client: speak(client, b""))) == ""
    assert node.lines.written == []


def test_invalid_bytes_on_the_port_get_bad_header(serve: Callable[..., FakeNode]) -> None:
    node = serve()
    with socket.create_connection(("127.0.0.1", node.port), HANG) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert b'"code": "bad_header"' in answer


def codes(node: FakeNode) -> list[str | None]:
    """The error codes on stdout; None for a success."""
    return [line.get("error", {}).get("code") for line in list(node.lines.written)]


def begin(node: FakeNode, size: int) -> socket.socket:
    """A connection that has sent half of its audio."""
    sock = socket.create_connection(("127.0.0.1", node.port), HANG)
    data = {"rate": 16_000, "width": 2, "channels": 1}
    line = {"type": "audio-chunk", "data": data, "payload_length": size}
    sock.sendall(json.dumps(line).encode() + b"\n" + bytes(size // 2))
    return sock


@pytest.mark.parametrize("reset", [False, True])
def test_client_lost_during_its_audio_frees_its_place(
    serve: Callable[..., FakeNode], reset: bool
) -> None:
    node = serve(queue_size=1)
    sock = begin(node, 20_000)
    eventually(lambda: node.server.load.admitted == 1, "its place")
    eventually(lambda: node.server.load.buffered_bytes > 0)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    sock.close()
    eventually(lambda: node.server.load.admitted == 0, "a free place")
    eventually(lambda: node.server.load.buffered_bytes == 0)
    assert text_of(talk(node.port, lambda client: speak(client, pcm(1600)))) == "1600"
    assert len(node.engine.calls) == 1
    eventually(lambda: codes(node) == ["incomplete", None])


def test_client_lost_while_it_waits_is_cancelled(
    serve: Callable[..., FakeNode],
) -> None:
    engine = FakeEngine()
    node = serve(engine)
    engine.hold()

    async def say_and_leave(client: AsyncTcpClient) -> None:
        await client.write_event(AudioChunk(16_000, 2, 1, pcm(1600)).event())
        await client.write_event(AudioStop().event())

    async def conversation(client: AsyncTcpClient) -> list[Event]:
        speaking = asyncio.create_task(speak(client, pcm(1600)))
        await asyncio.to_thread(engine.wait_for_calls, 1)
        async with AsyncTcpClient("127.0.0.1", node.port) as other:
            await say_and_leave(other)
        # The worker learns of the lost client after its current window; the port still answers.
        await asyncio.to_thread(eventually, lambda: node.cancelled)
        async with AsyncTcpClient("127.0.0.1", node.port) as third:
            await third.write_event(Ping().event())
            assert await third.read_event() is not None
        engine.release()
        return await speaking

    assert text_of(talk(node.port, conversation)) == "1600"
    eventually(lambda: codes(node) == [None, "cancelled"])
    assert len(engine.calls) == 1
    eventually(lambda: node.server.load.admitted == 0)


def test_stalled_audio_times_out(serve: Callable[..., FakeNode]) -> None:
    node = serve(timeouts=Timeouts(body=0.2))
    with begin(node, 20_000) as sock:
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert b'"code": "timeout"' in answer


def test_address_outside_wyoming_allow_is_closed(serve: Callable[..., FakeNode]) -> None:
    node = serve(None, "--wyoming-allow", "192.0.2.0/24")
    peer = socket.create_connection(("127.0.0.1", node.port), HANG)
    with peer, contextlib.suppress(ConnectionResetError):
        assert peer.recv(1) == b""
    eventually(lambda: node.server.load.connections == 0)


# With a real node.


WORDS = "ask not what your country can do for you"
Clip = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--wyoming-port", "0")) as node:
        yield node


@pytest.fixture(scope="module")
def clip() -> Clip:
    """The samples of a real clip, mono, at 48 kHz."""
    samples, rate = soundfile.read(JFK)
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return soxr.resample(mono, rate, 48_000)


def raw(clip: Clip, rate: int, width: int, channels: int) -> bytes:
    samples = soxr.resample(clip, 48_000, rate)
    if width == 1:
        levels = np.clip(np.round(samples * 127 + 128), 0, 255).astype(np.uint8)
    else:
        top = 2 ** (8 * width - 1) - 1
        levels = np.clip(np.round(samples * top), -top, top).astype(f"<i{width}")
    return np.repeat(levels[:, None], channels, axis=1).tobytes()


@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(16_000, 2, 1), (8_000, 1, 1), (44_100, 2, 2), (48_000, 4, 2)],
)
def test_real_node_returns_the_right_words(
    node: Node, clip: Clip, rate: int, width: int, channels: int
) -> None:
    audio = raw(clip, rate, width, channels)
    events = talk(
        node.listening["wyoming_port"],
        lambda client: speak(client, audio, rate, width, channels, language="en-US"),
    )
    said = "".join(c for c in text_of(events).lower() if c.isalpha() or c == " ")
    assert WORDS in said
    assert Transcript.from_event(events[-1]).language == "en"
