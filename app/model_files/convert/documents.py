"""JSON as the folders of models have it: read, and of the type that the reader relies on.

What is wrong with a file is one ConvertError that names it and what stands there, so that no reader
has to expect the exceptions of the json module, or of its own code on a value of a wrong type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from app.model_files.convert.source import ConvertError


def parse(text: bytes, what: Path) -> Any:
    """The document in `text`, UTF-8; `what` names it. Raises ConvertError."""
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ConvertError(f"{what} is nested too deeply to be a model's") from None
    except ValueError as error:
        raise ConvertError(f"{what} is not JSON in UTF-8 ({error})") from error


def read(path: Path) -> Any:
    """The document in `path`. Raises ConvertError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConvertError(f"{path} cannot be read ({error})") from error
    return parse(text, path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ConvertError."""
    found = read(path)
    if not isinstance(found, dict):
        raise ConvertError(f"{path} is not a JSON object")
    return found


def is_strings(value: object) -> TypeGuard[list[str]]:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 up. `true` is none, though Python counts with
    it."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
