"""The options of the engine and of the recognition."""

from __future__ import annotations

from app.decoding.context import FULL
from app.settings import types as values
from app.settings.option import Option

DECODING_OPTIONS = (
    Option(
        ("--threads",),
        None,
        values.number(int, 1, 512),
        "threads of the engine, or of all engines together (default: the number of processors this"
        " process may use)",
        "N",
    ),
    Option(
        ("--engines",),
        1,
        values.engines,
        "copies of the model that decode at the same time and share the threads, or auto, which"
        " stays within processors and free memory; from 2 on, one of them is kept free of files"
        " while live audio is open",
        "N",
    ),
    Option(
        ("--encoder-context",),
        "auto",
        values.encoder_context,
        f"number of encoder positions to compute per window: auto, full ({FULL}), or a number up to"
        f" {FULL}",
        "CONTEXT",
    ),
    Option(
        ("--language",),
        None,
        values.language,
        "language of requests that do not name one: a code or name, auto, or multi, which detects"
        " it in each window, for recordings in several languages (default: auto for multilingual"
        " models, en for English-only models)",
        "CODE",
    ),
    Option(
        ("--languages",),
        (),
        values.languages,
        "languages that detection chooses from, such as en,de; at most 16; separate several by"
        " commas or repeat the option (default: all that the model knows)",
        "CODES",
        repeatable=True,
    ),
    Option(
        ("--prompt",),
        "",
        values.prompt,
        "words to expect, for requests without a prompt of their own",
    ),
    Option(
        ("--keep-markers",),
        False,
        values.flag,
        "keep the model's markers of other sounds, such as [Music], in the text",
    ),
    Option(
        ("--vad-threshold",),
        0.5,
        values.number(float, 0, 1),
        "probability from which audio counts as speech; 0 treats everything as speech",
        "P",
    ),
    Option(
        ("--media",),
        "auto",
        values.choice("auto", "off"),
        "recordings of phones and browsers (m4a, webm and others): auto reads them with PyAV in a"
        " child process if PyAV is installed (requirements-media.txt), off rejects them",
        "MODE",
    ),
)
