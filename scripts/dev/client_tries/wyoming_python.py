"""The package of the Wyoming protocol, with the calls of Home Assistant's integration.
packages: wyoming==1.10.2 soundfile==0.13.1 soxr==1.0.0
"""

from __future__ import annotations

import asyncio
import os

import soundfile
import soxr
from check import AUDIO, check, said
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

PORT = int(os.environ["WYOMING_PORT"])
FORMAT = {"rate": 16_000, "width": 2, "channels": 1}


async def describe() -> Info:
    async with AsyncTcpClient("127.0.0.1", PORT) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        return Info.from_event(event)


async def transcribe(name: str | None) -> str:
    wave, rate = soundfile.read(AUDIO, dtype="float32", always_2d=True)
    data = (soxr.resample(wave.mean(axis=1), rate, 16_000) * 32767).astype("<i2").tobytes()
    async with AsyncTcpClient("127.0.0.1", PORT) as client:
        await client.write_event(Transcribe(language="en", name=name).event())
        await client.write_event(AudioStart(**FORMAT).event())
        for at in range(0, len(data), 2_048):
            chunk = AudioChunk(audio=data[at : at + 2_048], **FORMAT)
            await client.write_event(chunk.event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
            raise AssertionError(event.data.get("text", event.type))
        raise AssertionError("the connection ended")


@check("describe")
def _() -> None:
    assert asyncio.run(describe()).asr[0].models[0].installed


for name in (None, "base-int8"):

    @check(f"a command, model {name}")
    def _(name: str | None = name) -> None:
        said(asyncio.run(transcribe(name)))
