"""Groq's package, which puts /openai/v1 after the base address.
packages: groq==1.7.0
"""

from __future__ import annotations

import groq
from check import AUDIO, NODE, check, said


@check("a file")
def _() -> None:
    client = groq.Groq(base_url=NODE, api_key="none", max_retries=0)
    answer = client.audio.transcriptions.create(
        file=AUDIO, model="whisper-large-v3-turbo", response_format="verbose_json"
    )
    said(answer.text)
