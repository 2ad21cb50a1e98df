"""The settings that apply to every job. Frozen; made before the threads begin."""

from __future__ import annotations

from dataclasses import dataclass

from app.audio.source import OpenMedia


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings that apply to every job."""

    max_seconds: float
    """Longest recording accepted."""
    vad_threshold: float
    """The `threshold` of a `Windower`."""
    language: str
    """The language of a request that names none."""
    prompt: str
    """The prompt of a request without one."""
    model: str
    """The model's full name."""
    keep_markers: bool = False
    """True to keep markers of other sounds, such as "[Music]", in the text."""
    languages: tuple[str, ...] = ()
    """The languages that detection chooses from; empty for all."""
    max_live: int = 16
    """Most utterances of streams in progress at one time."""
    media: OpenMedia | None = None
    """Opens files that libsndfile does not read; None rejects them."""
