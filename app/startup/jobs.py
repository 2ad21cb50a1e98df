"""The settings of jobs, as the node's settings say. Main thread, at start."""

from __future__ import annotations

from app.decoding.transcriber import ModelInfo
from app.settings.settings import Settings
from app.startup import media, model
from app.worker.job_settings import JobSettings


def job_settings(settings: Settings, info: ModelInfo) -> JobSettings:
    """Return the settings of every job with the loaded model `info`."""
    return JobSettings(
        max_seconds=settings.max_audio_seconds,
        vad_threshold=settings.vad_threshold,
        language=model.language_of(settings, info),
        prompt=settings.prompt,
        model=info.name,
        keep_markers=settings.keep_markers,
        languages=settings.languages,
        max_live=settings.max_live,
        media=media.opener(settings),
    )
