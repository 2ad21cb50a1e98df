"""Bodies that are the audio itself, with the fields in the query of the address. Loop thread."""

from __future__ import annotations

from app.limits import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from app.messages import BAD_FIELD, MISSING_FIELD, RawFormat
from app.protocols.http.form import Fields, FormError
from app.protocols.http.parameters import parameters

_RAW = {"audio/l16": "big", "audio/pcm": "little"}
"""Types of samples without a header, 16 bits each, and their byte order: RFC 2586 for L16."""


def is_audio(kind: str) -> bool:
    """Return whether a body of this content type is a file or samples."""
    return kind.startswith(("audio/", "video/")) or kind == "application/octet-stream"


def raw_format(content_type: str) -> RawFormat | None:
    """Return the format of samples, which stands in the content type; None for a file. Raises
    `FormError`."""
    name, options = parameters(content_type)
    if name not in _RAW:
        return None
    rate = _whole(options, "rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    channels = _whole(options, "channels", 1, MAX_CHANNELS) if "channels" in options else 1
    return RawFormat("s16", rate, channels, "big" if _RAW[name] == "big" else "little")


class AudioBody:
    """A body that is passed on as it is."""

    def __init__(self) -> None:
        self._is_empty = True

    def feed(self, data: bytes) -> list[memoryview]:
        """Return the audio in the next bytes."""
        self._is_empty = self._is_empty and not data
        return [memoryview(data)]

    def finish(self) -> Fields:
        """Return the fields, of which there are none. Raises `FormError` for an empty body."""
        if self._is_empty:
            raise FormError(MISSING_FIELD, "file is missing: the body is empty; send the audio")
        return {}


def _whole(options: dict[str, str], name: str, least: int, most: int) -> int:
    text = options.get(name, "")
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not least <= value <= most:
        message = f"Content-Type needs {name}, a whole number from {least} to {most}"
        raise FormError(BAD_FIELD, message)
    return value
