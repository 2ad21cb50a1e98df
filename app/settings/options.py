"""The table of options: names, defaults, value types and help texts.

Every default carries its reason in its help or beside it.
"""

from __future__ import annotations

from pathlib import Path

from app.settings import types as values
from app.settings.decoding_options import DECODING_OPTIONS
from app.settings.limit_options import LIMIT_OPTIONS
from app.settings.option import Option
from app.settings.port_options import PORT_OPTIONS
from app.settings.queue_options import QUEUE_OPTIONS

_FIRST = (
    Option(("-m", "--model"), "tiny.en", values.model, "a Whisper model by name, or a ggml file"),
    Option(("-lv", "--log-verbose"), False, values.flag, "log at debug level"),
)

_FILES_AND_OUTPUT = (
    Option(
        ("--models-dir",),
        None,
        values.directory,
        "an additional directory to search for models",
        "DIR",
    ),
    Option(
        ("--spool-dir",),
        Path("/var/tmp"),
        values.writable_directory,
        "directory for bodies over 4 MiB; use a disk, not RAM",
        "DIR",
    ),
    Option(
        ("--journal",),
        None,
        values.path,
        "directory in which accepted requests are recorded, to be resumed after a crash;"
        " off by default because it wears SD cards",
        "DIR",
    ),
    Option(("--offline",), False, values.flag, "never use the network to fetch a model"),
    Option(
        ("--output",),
        "auto",
        values.choice("auto", "text", "json"),
        "format of stdout: text or JSON lines; auto is text on a terminal",
        "KIND",
    ),
    Option(
        ("--log-format",),
        "console",
        values.choice("console", "json"),
        "format of the log on stderr",
        "KIND",
    ),
    Option(
        ("--drain-seconds",),
        8.0,
        values.number(float, 0, 3600),
        "time to finish accepted requests after SIGTERM; Docker kills after 10 s",
        "S",
    ),
)

GROUPS: dict[str, tuple[Option, ...]] = {
    "model and log": _FIRST,
    "ports and access": PORT_OPTIONS,
    "jobs from a broker": QUEUE_OPTIONS,
    "recognition": DECODING_OPTIONS,
    "limits": LIMIT_OPTIONS,
    "files, output and shutdown": _FILES_AND_OUTPUT,
}
"""All options by subject, as --help shows them."""

OPTIONS = tuple(option for options in GROUPS.values() for option in options)
