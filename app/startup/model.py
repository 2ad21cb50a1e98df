"""Obtains the model that the settings name and checks that it supports their language.

Main thread, before the engine is loaded.
"""

from __future__ import annotations

import sys

from app.decoding.transcriber import ModelInfo
from app.model_files import catalog
from app.protocols.model_names import ModelNames
from app.settings import settings as config

_ALIAS = "whisper-1"
"""The model name that OpenAI's clients send."""


def obtain(settings: config.Settings) -> catalog.ModelFile:
    """Return the verified model file, fetched if it is missing. Raises `CatalogError`."""
    directories = [config.MODELS_DIR]
    if settings.models_dir is not None:
        directories.append(settings.models_dir)
    progress = _show_progress if sys.stderr.isatty() else None
    return catalog.obtain(settings.model, directories, offline=settings.offline, progress=progress)


def names_of(settings: config.Settings, model: ModelInfo) -> ModelNames:
    """Return the model's names in requests: full name, short name, OpenAI's alias, the user's."""
    entry = catalog.find(model.name)
    short = () if entry is None else (entry.model,)
    names = {model.name, *short, _ALIAS, *settings.served_model_name}
    return ModelNames(model.name, frozenset(names), settings.strict_model)


def language_of(settings: config.Settings, model: ModelInfo) -> str:
    """Return the language of requests that do not name one: a code, `auto` or `multi`."""
    if not model.multilingual and settings.language in (None, "auto"):
        return "en"
    return settings.language or "auto"


def wrong_language(settings: config.Settings, model: ModelInfo) -> str | None:
    """Return why the model does not support the settings' language, or None if it does."""
    asked = settings.language
    if unknown := [code for code in settings.languages if code not in model.languages]:
        return f"--languages {unknown[0]}: {model.name} does not support this language"
    if settings.task == "translate" and not model.multilingual:
        return f"--task translate: {model.name} is English-only and cannot translate"
    if asked == "multi" and not model.multilingual:
        return f"--language multi: {model.name} is English-only; use en or a multilingual model"
    language = language_of(settings, model)
    if language not in ("auto", "multi") and language not in model.languages:
        return f"--language {language}: {model.name} does not support this language"
    return None


def _show_progress(done: int, total: int | None) -> None:
    """Show the progress of a download in one line of the terminal."""
    size = "" if total is None else f" of {total >> 20}"
    end = "\n" if done == total else ""
    print(f"\rmodel: {done >> 20}{size} MiB", end=end, file=sys.stderr, flush=True)
