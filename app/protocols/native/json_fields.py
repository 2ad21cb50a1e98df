"""The JSON values of a header: an object, and one reader for each type of field.

Pure. A wrong value raises `FieldError`, input that is not an object `ProtocolError`. Loop thread.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from app.messages import BAD_FIELD, BAD_HEADER, MISSING_FIELD, Failure
from app.protocols.base import ProtocolError


class FieldError(Exception):
    """A field is missing or invalid; `failure` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)


def load_object(data: bytes) -> dict[str, Any]:
    """Parse a header. Raises `ProtocolError` unless it is a JSON object in UTF-8 without duplicate
    keys."""

    def reject_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key occurs twice")
        return fields

    try:
        fields = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reject_duplicates,
            parse_constant=reject_constant,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = f"the header is not a UTF-8 JSON object: {reason[:200]}"
        raise ProtocolError(Failure(BAD_HEADER, message)) from None
    if not isinstance(fields, dict):
        raise ProtocolError(Failure(BAD_HEADER, "the header is JSON but not an object"))
    return fields


def present(fields: dict[str, Any], name: str) -> Any:
    """Return a required field of any type."""
    if name not in fields:
        raise FieldError(MISSING_FIELD, f"{name} is missing")
    return fields[name]


def string(fields: dict[str, Any], name: str) -> str:
    """Return a required string."""
    value = present(fields, name)
    if not isinstance(value, str):
        raise FieldError(BAD_FIELD, f"{name} must be a string")
    return value


def boolean(fields: dict[str, Any], name: str) -> bool:
    """Return a boolean; False if it is absent."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise FieldError(BAD_FIELD, f"{name} must be true or false")
    return value


def integer(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    """Return a required whole number from `least` to `most`."""
    value = present(fields, name)
    if type(value) is not int or not least <= value <= most:
        raise FieldError(BAD_FIELD, f"{name} must be a whole number from {least} to {most}")
    return value


def number(fields: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    """Return a number from `least` to `most`; `default` if it is absent."""
    value = fields.get(name, default)
    if type(value) not in (int, float) or not least <= value <= most:
        raise FieldError(BAD_FIELD, f"{name} must be a number from {least:g} to {most:g}")
    return float(value)


def choice(
    fields: dict[str, Any], name: str, choices: tuple[str, ...], default: str | None = None
) -> str:
    """Return one of `choices`; if it is absent, `default`, or an error without one."""
    if default is not None and name not in fields:
        return default
    value = present(fields, name)
    if value not in choices:
        raise FieldError(BAD_FIELD, f"{name} must be one of {', '.join(choices)}")
    return cast(str, value)
