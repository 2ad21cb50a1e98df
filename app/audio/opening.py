"""Choose the decoder of a body and open it.

libsndfile reads what it can, FFmpeg only the rest. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable

from app.audio import sound_file
from app.audio.audio_error import AudioError
from app.audio.codec_names import codec_name
from app.audio.media.formats import DEMUXERS
from app.audio.patch import Patch, apply_patches
from app.audio.sniff import READABLE, Container, inspect
from app.audio.source import OpenMedia, Source
from app.messages import BAD_AUDIO, NO_SPACE, SAMPLE_BYTES, UNSUPPORTED_MEDIA_TYPE, RawFormat

_RETRY_SECONDS = 60.0
"""Seconds until a retry: time for an operator or other requests to free disk space."""

Patcher = Callable[[tuple[Patch, ...]], int]
"""A function that applies patches to a private copy of the body and returns the copy's descriptor.
Raises `OSError` without space for a copy."""


def open_source(
    descriptor: int,
    size: int,
    raw: RawFormat | None,
    max_seconds: float,
    patch: Patcher | None,
    media: OpenMedia | None,
) -> Source:
    """Open a body of `size` bytes; the arguments are those of `AudioStream`. Raises `AudioError`
    and `OSError`."""
    if size == 0:
        raise AudioError(BAD_AUDIO, "the body is empty")
    if raw is not None:
        samples = sound_file.open_raw(descriptor, raw)
        samples.truncated = size % (SAMPLE_BYTES[raw.encoding] * raw.channels) != 0
        return samples
    container = inspect(descriptor, size)
    if container is None:
        raise _unsupported("not recognised", media)
    if not container.readable:
        if container.name not in DEMUXERS:
            raise _unsupported(f"recognised as {container.name}", media)
        return _open_media(descriptor, container.name, container.name, max_seconds, media)
    try:
        file = sound_file.open_file(_patched(descriptor, container, patch), container.name)
    except AudioError:
        codec = codec_name(container.name, descriptor)
        if codec is None:
            raise
        found = f"{codec} in {container.name}"
        other = _open_media(descriptor, container.name, found, max_seconds, media)
        other.truncated = container.truncated
        return other
    file.truncated = container.truncated
    return file


def _open_media(
    descriptor: int, name: str, found: str, max_seconds: float, media: OpenMedia | None
) -> Source:
    """Open a file that FFmpeg reads; `found` is its description for the client."""
    if media is None:
        raise _unsupported(f"recognised as {found}, which needs a node with --media auto", None)
    return media(descriptor, name, found, max_seconds)


def _unsupported(found: str, media: OpenMedia | None) -> AudioError:
    kinds = ", ".join(sorted(READABLE if media is None else READABLE | DEMUXERS.keys()))
    message = f"the audio was {found}; this node reads {kinds} and raw samples"
    return AudioError(UNSUPPORTED_MEDIA_TYPE, message)


def _patched(descriptor: int, container: Container, patch: Patcher | None) -> int:
    """Return a descriptor of the file as the decoder needs it."""
    if not container.patches:
        return descriptor
    try:
        if patch is not None:
            return patch(container.patches)
        apply_patches(descriptor, container.patches)
    except OSError as error:
        message = f"no space to repair a copy of the {container.name} file: {error.strerror}"
        raise AudioError(NO_SPACE, message, _RETRY_SECONDS) from None
    return descriptor
