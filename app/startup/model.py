"""The model that the settings name, verified, fetched if it is missing; and whether it knows the
language they name. Main thread, before the engine is loaded.
"""

from __future__ import annotations

import sys

from app.decoding.transcriber import ModelInfo
from app.model_files import catalog
from app.settings import settings as config


def obtain(settings: config.Settings) -> catalog.ModelFile:
    """The model's file. Raises `CatalogError`."""
    directories = [config.MODELS_DIR]
    if settings.models_dir is not None:
        directories.append(settings.models_dir)
    progress = _show_progress if sys.stderr.isatty() else None
    return catalog.obtain(settings.model, directories, offline=settings.offline, progress=progress)


def language_of(settings: config.Settings, model: ModelInfo) -> str:
    """The language for requests that name none: a code, or `auto`."""
    return settings.language or ("auto" if model.multilingual else "en")


def wrong_language(settings: config.Settings, model: ModelInfo) -> str | None:
    """Why the settings' language is none of the model's, as a sentence; None if it is."""
    asked = settings.language
    if asked == "auto" and not model.multilingual:
        return f"--language auto: {model.name} knows English only"
    language = language_of(settings, model)
    if language != "auto" and language not in model.languages:
        return f"--language {language}: {model.name} does not know it"
    return None


def _show_progress(done: int, total: int | None) -> None:
    """A model on its way, in place, on a terminal."""
    size = "" if total is None else f" of {total >> 20}"
    end = "\n" if done == total else ""
    print(f"\rmodel: {done >> 20}{size} MiB", end=end, file=sys.stderr, flush=True)
