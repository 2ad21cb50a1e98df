"""Form fields that hold a list, in every shape that clients write. Pure.

A list `x` of two values may be `x=a` and `x=b`, `x[]=a` and `x[]=b`, `x[0]=a` and `x[1]=b`,
`x=a,b`, or `x=["a", "b"]`.
"""

from __future__ import annotations

import json
import re

from app.messages import BAD_FIELD
from app.protocols.http.form import Fields, FormError


def list_of(fields: Fields, name: str) -> list[str]:
    """Return the values of the list `name`, without those that are empty. Raises `FormError` if a
    value looks like JSON and is not a list of texts."""
    key = re.compile(re.escape(name) + r"(\[\d*\])?")
    texts = [text for found in fields if key.fullmatch(found) for text in fields[found]]
    values = [value for text in texts for value in _split(text.strip(), name)]
    return [value.strip() for value in values if value.strip()]


def _split(text: str, name: str) -> list[str]:
    if not text.startswith("["):
        return text.split(",")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FormError(BAD_FIELD, f"{name} must be a list of texts, as JSON or with commas")
    return values
