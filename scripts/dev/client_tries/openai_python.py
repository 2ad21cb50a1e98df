"""OpenAI's package for Python: files, formats, streams, errors, live audio.
packages: openai[realtime]==3.57.0 soundfile==0.13.1 soxr==1.0.0
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import openai
import soundfile
import soxr
from check import AUDIO, V1, WORDS, check, said, words

client = openai.OpenAI(base_url=V1, api_key="none", max_retries=0, timeout=120)


def transcribe(**fields: Any) -> Any:
    return client.audio.transcriptions.create(file=AUDIO, **{"model": "whisper-1", **fields})


@check("a file")
def _() -> None:
    said(transcribe().text)


for model in ("gpt-4o-transcribe", "Systran/faster-whisper-small"):

    @check(f"model {model}")
    def _(model: str = model) -> None:
        said(transcribe(model=model).text)


for form in ("text", "srt", "vtt", "verbose_json"):

    @check(f"format {form}")
    def _(form: str = form) -> None:
        answer = transcribe(response_format=form)
        assert "country" in (answer if isinstance(answer, str) else answer.text)


@check("words and segments")
def _() -> None:
    both: Any = ["word", "segment"]
    answer = transcribe(response_format="verbose_json", timestamp_granularities=both)
    assert len(answer.words) > 15
    assert answer.segments


@check("a stream")
def _() -> None:
    *deltas, done = transcribe(stream=True, model="gpt-4o-transcribe")
    said(done.text)
    assert "".join(event.delta for event in deltas) == done.text


@check("AsyncOpenAI")
def _() -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=V1, api_key="none") as other:
            return (await other.audio.transcriptions.create(file=AUDIO, model="whisper-1")).text

    said(asyncio.run(ask()))


@check("bytes that are no audio are a BadRequestError")
def _() -> None:
    try:
        client.audio.transcriptions.create(file=("a.wav", b"no audio" * 50), model="whisper-1")
    except openai.BadRequestError:
        return
    raise AssertionError("no error")


@check("live audio")
def _() -> None:
    wave, rate = soundfile.read(AUDIO, dtype="float32", always_2d=True)
    wave = np.concatenate([soxr.resample(wave.mean(axis=1), rate, 24_000), np.zeros(24_000)])
    data = (wave * 32767).astype("<i2").tobytes()
    text = ""
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        for at in range(0, len(data), 9_600):
            piece = base64.b64encode(data[at : at + 9_600]).decode()
            connection.input_audio_buffer.append(audio=piece)
        for event in connection:
            if event.type == "conversation.item.input_audio_transcription.completed":
                text += f" {event.transcript}"
                if WORDS in words(text):
                    return
