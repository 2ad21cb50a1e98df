"""Live audio over WebSocket on a real node with real clients: the packages `openai`, `websockets`.

The recording is sent at once; pauses and words are in the audio, so that pacing changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from node import HANG, JFK, Node, stopped_cleanly
from openai import AsyncOpenAI, OpenAI
from sockets import append
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

TOKEN = "geheim/mit=zeichen.0123456789"
"""A token with characters that no subprotocol may have."""

DONE = "conversation.item.input_audio_transcription.completed"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--http-port", "0", "--vosk-port", "0")) as node:
        yield node


def samples(rate: int, silence: float = 0.0) -> bytes:
    """The recording as 16-bit samples, with `silence` seconds after it."""
    wave, original = soundfile.read(JFK, dtype="float32")
    wave = wave if wave.ndim == 1 else wave.mean(axis=1)
    wave = np.concatenate([soxr.resample(wave, original, rate), np.zeros(int(silence * rate))])
    return bytes((wave * 32767).astype("<i2").tobytes())


def pieces(data: bytes, size: int = 9_600) -> list[str]:
    return [base64.b64encode(data[at : at + size]).decode() for at in range(0, len(data), size)]


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


SPEECH = "ask not what your country can do for you"


def place(node: Node) -> str:
    return str(node.listening["http"]).rstrip("/")


def input_of(**fields: Any) -> Any:
    return {"type": "transcription", "audio": {"input": fields}}


def test_openai_client_transcribes_with_server_vad(node: Node) -> None:
    client = OpenAI(base_url=f"{place(node)}/v1", api_key="none")
    deltas: dict[str, str] = {}
    texts: dict[str, str] = {}
    include = ["item.input_audio_transcription.logprobs"]
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        session = input_of(turn_detection={"type": "server_vad"})
        connection.session.update(session={**session, "include": include})
        for piece in pieces(samples(24_000, silence=1.0)):
            connection.input_audio_buffer.append(audio=piece)
        stopped = 0
        for event in connection:
            assert event.type != "error"
            if event.type == "input_audio_buffer.speech_stopped":
                stopped = event.audio_end_ms
            elif event.type == "conversation.item.input_audio_transcription.delta":
                deltas[event.item_id] = deltas.get(event.item_id, "") + (event.delta or "")
            elif event.type == DONE:
                texts[event.item_id] = event.transcript
                tokens = [token.token for token in event.logprobs or ()]
                assert "".join(tokens) == event.transcript
                if stopped > 10_000:
                    break
    assert "what your country can do for you" in words(" ".join(texts.values()))
    assert len(texts) > 1
    assert deltas == texts
    client.close()


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_websocket_client_commits_by_itself_at_any_rate(node: Node, rate: int) -> None:
    with connect(f"ws{place(node)[4:]}/v1/realtime", open_timeout=HANG) as client:
        form = {"type": "audio/pcm", "rate": rate}
        update = {"type": "session.update", "session": input_of(format=form, turn_detection=None)}
        client.send(json.dumps(update))
        for piece in pieces(samples(rate)):
            client.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
        client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        while (event := json.loads(client.recv(HANG)))["type"] != DONE:
            assert event["type"] != "error"
    assert SPEECH in words(event["transcript"])
    assert event["usage"] == {"type": "duration", "seconds": 11.0}


def test_async_openai_client_sends_g711(node: Node) -> None:
    """G.711 as libsndfile writes it, which is another implementation than the node's."""
    from io import BytesIO

    wave = np.frombuffer(samples(8_000), "<i2")
    with BytesIO() as file:
        soundfile.write(file, wave, 8_000, format="RAW", subtype="ULAW")
        coded = file.getvalue()

    async def run() -> str:
        client = AsyncOpenAI(base_url=f"{place(node)}/v1", api_key="none")
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(
                session=input_of(format={"type": "audio/pcmu"}, turn_detection=None)
            )
            for piece in pieces(coded, 3_200):
                await connection.input_audio_buffer.append(audio=piece)
            await connection.input_audio_buffer.commit()
            async for event in connection:
                assert event.type != "error"
                if event.type == DONE:
                    break
        await client.close()
        return event.transcript  # type: ignore[union-attr]

    assert "your country can do for you" in words(asyncio.run(asyncio.wait_for(run(), HANG)))


def test_vosk_client_in_lock_step(node: Node) -> None:
    """The loop of vosk-server's test.py: one reply for each message, then the final one."""
    with connect(f"ws://127.0.0.1:{node.listening['vosk_port']}", open_timeout=HANG) as client:
        client.send('{ "config" : { "sample_rate" : 16000 } }')
        data = samples(16_000)
        replies = []
        for at in range(0, len(data), 8_000):
            client.send(data[at : at + 8_000])
            replies.append(json.loads(client.recv(HANG)))
        client.send('{"eof" : 1}')
        replies.append(json.loads(client.recv(HANG)))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(HANG)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    results = [reply for reply in replies if "text" in reply]
    assert "what your country can do for you" in words(" ".join(one["text"] for one in results))
    timed = [word for result in results for word in result.get("result", ())]
    assert [word["word"] for word in timed] == " ".join(one["text"] for one in results).split()
    assert all(0 <= word["start"] <= word["end"] <= 11.5 for word in timed)
    assert all(0 < word["conf"] <= 1 for word in timed)


def test_token_is_nowhere_to_be_seen() -> None:
    """Log at debug level, stdout, metrics and status, after every way to send it."""
    environment = {"NODE_WHISPER_TOKEN": TOKEN}
    coded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    with Node("--http-port", "0", "-lv", environment=environment) as node:
        address = f"ws{place(node)[4:]}"
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        offered: Any = ["realtime", f"node-whisper-token.{coded}"]
        query = f"token={TOKEN.replace('/', '%2F').replace('=', '%3D')}"
        for path in (f"/v1/realtime?{query}", f"/vosk?{query}"):
            with connect(address + path, open_timeout=HANG) as client:
                client.send(bytes(320) if "vosk" in path else json.dumps(append(bytes(4800))))
                if "vosk" not in path:
                    client.send("{")  # an error, and a close
                    with pytest.raises(ConnectionClosed):
                        [client.recv(HANG) for _ in range(9)]
        with connect(f"{address}/v1/realtime", open_timeout=HANG, subprotocols=offered) as client:
            assert client.subprotocol == "realtime"
        with connect(f"{address}/v1/realtime", open_timeout=HANG, additional_headers=bearer):
            pass
        # A right token in a wrong place, and an address that is not found.
        for path in (f"/v1/realtime?token={TOKEN}x", f"/nothing?{query}"):
            with pytest.raises(InvalidStatus) as refused, connect(address + path):
                pass
            shown = (refused.value.response.body or b"").decode()
            assert TOKEN not in shown
            assert coded not in shown
        pages = []
        for page in ("/status", "/metrics"):
            request = urllib.request.Request(place(node) + page, headers=bearer)
            with urllib.request.urlopen(request, timeout=HANG) as answer:
                pages.append(answer.read().decode())
        assert node.stop() == 0
        assert node.out is not None
        seen = "\n".join([*node.log.all(), *node.out.all(), *pages])
    assert "unauthorized" in seen
    for secret in (TOKEN, coded, TOKEN.replace("/", "%2F").replace("=", "%3D"), "geheim"):
        assert secret not in seen


def test_sigterm_sends_the_open_utterance_and_closes_with_1001() -> None:
    with Node("--http-port", "0") as node:
        with connect(f"ws{place(node)[4:]}/v1/realtime", open_timeout=HANG) as client:
            update = {"type": "session.update", "session": input_of(turn_detection=None)}
            client.send(json.dumps(update))
            for piece in pieces(samples(24_000)):
                client.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
            client.send(json.dumps({"type": "input_audio_buffer.commit"}))
            while json.loads(client.recv(HANG))["type"] != "input_audio_buffer.committed":
                pass
            node.signal(signal.SIGTERM)
            events = [json.loads(message) for message in client]
            assert client.close_code == 1001
        assert SPEECH in words(" ".join(event.get("transcript") or "" for event in events))
        assert node.wait() == 0
