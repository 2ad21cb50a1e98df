"""LiteLLM's package.
packages: litellm==1.110.2
"""

from __future__ import annotations

import os
from typing import Any

from check import AUDIO, V1, check, said

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm


def transcribe(**fields: Any) -> Any:
    with AUDIO.open("rb") as file:
        options = {"model": "openai/whisper-1", "api_base": V1, "api_key": "none", **fields}
        return litellm.transcription(file=file, **options)


@check("a file")
def _() -> None:
    said(transcribe().text)


for model in ("openai/gpt-4o-transcribe", "hosted_vllm/whisper-1", "groq/whisper-large-v3"):

    @check(f"model {model}")
    def _(model: str = model) -> None:
        said(transcribe(model=model).text)


@check("words")
def _() -> None:
    answer = transcribe(response_format="verbose_json", timestamp_granularities=["word"])
    assert len(answer.words) > 15
