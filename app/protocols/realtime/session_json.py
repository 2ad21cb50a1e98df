"""The JSON of a transcription session, in the older form or today's.

Shapes as in OpenAI's Python package 3.54. Pure.
"""

from __future__ import annotations

from typing import Any

from app.protocols.realtime.config import MODERN, OLDER, Config, Node
from app.protocols.realtime.turns import turns_json


def session_json(config: Config, session_id: str, node: Node, *, older: bool) -> dict[str, Any]:
    """Return the session with all values in effect, in the older form or today's."""
    transcription: dict[str, Any] = {
        "model": node.names.name,
        "language": config.language or node.language,
        "prompt": config.whole_prompt,
    }
    if config.languages:
        transcription["languages"] = list(config.languages)
    turns = None if config.turns is None else turns_json(config.turns, node.threshold)
    session = {
        "id": session_id,
        "object": "realtime.transcription_session",
        "type": "transcription",
        # Sessions have no longest duration.
        "expires_at": None,
        "include": config.include or None,
    }
    if older:
        return session | {
            "input_audio_format": {value: key for key, value in OLDER.items()}[
                config.format.coding
            ],
            "input_audio_transcription": transcription,
            "input_audio_noise_reduction": None,
            "turn_detection": turns,
        }
    format_json: dict[str, Any] = {
        "type": {value: key for key, value in MODERN.items()}[config.format.coding]
    }
    if config.format.coding == "pcm":
        format_json["rate"] = config.format.rate
    source = {
        "format": format_json,
        "noise_reduction": None,
        "transcription": transcription,
        "turn_detection": turns,
    }
    return session | {"audio": {"input": source}}
