"""Read the JSON documents in a model's folder and check their types.

Every fault is a ConvertError that names the file and the value, so that no reader has to expect the
exceptions of the json module, or of its own code on a value of a wrong type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from app.model_files.convert.source import ConvertError


def parse(text: bytes, what: Path) -> Any:
    """Return the document in `text`, UTF-8; `what` names it. Raises ConvertError."""
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ConvertError(f"{what} is nested too deeply to be a model's") from None
    except ValueError as error:
        raise ConvertError(f"{what} is not JSON in UTF-8 ({error})") from error


def read(path: Path) -> Any:
    """Return the document in `path`. Raises ConvertError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConvertError(f"{path} cannot be read ({error})") from error
    return parse(text, path)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises ConvertError."""
    found = read(path)
    if not isinstance(found, dict):
        raise ConvertError(f"{path} is not a JSON object")
    return found


def is_strings(value: object) -> TypeGuard[list[str]]:
    """Return whether `value` is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_sizes(value: object) -> TypeGuard[list[int]]:
    """Return whether `value` is a list of whole numbers from 0 up. `true` is none, although it is
    an int in Python."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
