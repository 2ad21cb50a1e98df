"""The settings: one frozen object, read from the command line and the environment.

Every flag (`app/settings/options.py`) has a variable of the same name (`--queue-size`,
`NODE_WHISPER_QUEUE_SIZE`); a flag beats its variable. An invalid value gives one line on
stderr and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from app import __version__
from app.decoding.context import EncoderContext
from app.messages import Task
from app.model_files.folders import models_folder
from app.protocols.languages import MAX_LANGUAGES, contradiction
from app.settings.option import PREFIX, Option
from app.settings.options import GROUPS, OPTIONS
from app.settings.types import Network, flag

MODELS_DIR = models_folder()
"""The directory that is always searched for models."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can choose, in seconds and bytes; None means that the node chooses."""

    model: str
    log_verbose: bool
    host: str
    port: int | None
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    http_port: int | Literal["auto"] | None
    served_model_name: tuple[str, ...]
    strict_model: bool
    cors_origin: tuple[str, ...]
    trusted_proxy: tuple[Network, ...]
    metrics_auth: bool
    vosk_port: int | None
    wyoming_port: int | None
    wyoming_streaming: bool
    wyoming_open: bool
    wyoming_allow: tuple[Network, ...]
    announce: bool
    name: str
    task: Task
    queue: tuple[str, ...]
    queue_credentials: Path | None
    queue_ca: Path | None
    queue_places: int
    threads: int | None
    engines: int | Literal["auto"]
    encoder_context: EncoderContext
    language: str | None
    languages: tuple[str, ...]
    prompt: str
    keep_markers: bool
    vad_threshold: float
    media: str
    queue_size: int
    max_connections: int
    max_audio_seconds: float
    max_message_bytes: int
    max_buffered_bytes: int
    max_live: int
    when_full: str
    models_dir: Path | None
    spool_dir: Path
    journal: Path | None
    offline: bool
    output: str
    log_format: str
    drain_seconds: float


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line; argparse would print the whole usage above it and hide the error."""
        self.exit(2, f"node-whisper: {message} (see --help)\n")


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment. Exits with 2 where a value is wrong."""
    parser = _Parser(
        prog="python -m app",
        description="A transcription worker node: audio in over TCP, text out.",
        epilog=f"Each option can also be set as {PREFIX}..., for example {PREFIX}QUEUE_SIZE.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"node-whisper {__version__}")
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        for option in options:
            _add(group, option)
    # Flags first: -h must work even if a variable is invalid.
    given = vars(parser.parse_args(arguments))
    values = {option.field: option.default for option in OPTIONS}
    values.update(_from_environment(parser, environment))
    values.update(given)
    values.update({name: tuple(value) for name, value in values.items() if type(value) is list})
    largest = values["max_message_bytes"]
    if values["max_buffered_bytes"] is None:
        values["max_buffered_bytes"] = 3 * largest
    if values["max_buffered_bytes"] < largest:
        parser.error(
            f"--max-buffered-bytes is too small: it must hold one body of {largest} bytes"
            " (--max-message-bytes)"
        )
    if values["port"] is None and not values["queue"]:
        parser.error("--port off leaves a node without jobs; name a broker with --queue")
    if reason := contradiction(values["language"], values["languages"]):
        parser.error(f"--languages {reason}")
    if len(values["languages"]) > MAX_LANGUAGES:
        parser.error(f"--languages takes at most {MAX_LANGUAGES} codes")
    return Settings(**{field.name: values[field.name] for field in fields(Settings)})


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    # Defaults are kept out of argparse, so that given values can be distinguished from defaults.
    default = f"{option.default:g}" if isinstance(option.default, float) else option.default
    shown = "" if default in (None, "", False, ()) else f" (default: {default})"
    text = (option.help + shown).replace("%", "%%")
    if option.parse is flag:
        group.add_argument(*option.names, action="store_true", default=argparse.SUPPRESS, help=text)
    else:
        group.add_argument(
            *option.names,
            action="extend" if option.repeatable else "store",
            type=option.parse,
            default=argparse.SUPPRESS,
            metavar=option.metavar or option.field.upper(),
            help=text,
        )


def _from_environment(
    parser: argparse.ArgumentParser, environment: Mapping[str, str]
) -> dict[str, Any]:
    values = {}
    for option in OPTIONS:
        # Empty is unset, as compose files write it.
        if environment.get(option.variable):
            try:
                values[option.field] = option.parse(environment[option.variable])
            except argparse.ArgumentTypeError as error:
                parser.error(f"{option.variable}: {error}")
    return values
