"""Choose the decoder of a body and open it.

libsndfile reads what it can, FFmpeg only the rest. A body is one source, or several one after the
other: the links of an Ogg file. Each link is opened from an extract, a private file with its bytes
alone, because libsndfile reads only what begins at the beginning of a file. Worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.audio import ogg, sound_file
from app.audio.audio_error import AudioError
from app.audio.codec_names import codec_name
from app.audio.extract import Extractor, Parts, in_memory
from app.audio.g722 import G722File
from app.audio.media.formats import DEMUXERS
from app.audio.ogg import Link
from app.audio.patch import Patch, apply_patches
from app.audio.raw_format import unit
from app.audio.sniff import READABLE, Container, inspect
from app.audio.source import OpenMedia, Source
from app.messages import BAD_AUDIO, NO_SPACE, UNSUPPORTED_MEDIA_TYPE, RawFormat

_RETRY_SECONDS = 60.0
"""Seconds until a retry: time for an operator or other requests to free disk space."""

_NO_HEADER = (
    "; send a file without a header, such as .ulaw or .gsm, to the native port as audio/pcm with "
    "its encoding"
)

Patcher = Callable[[tuple[Patch, ...]], int]
"""A function that applies patches to a private copy of the body and returns the copy's descriptor.
Raises `OSError` without space for a copy."""


@dataclass(frozen=True, slots=True)
class Means:
    """The means to open a body that libsndfile does not read as it is. Without `patch` it is
    patched in place, without `extract` parts of it are held in memory, and without `media` FFmpeg
    reads nothing."""

    patch: Patcher | None = None
    extract: Extractor | None = None
    media: OpenMedia | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened body: its first source, and the further ones, which are opened as they are taken.
    `channels` are the most of any source. `truncated` is what the container says. `is_single` if
    there are no further sources."""

    first: Source
    further: Iterator[Source | None]
    """None stands for a source that cannot be read."""
    channels: int
    truncated: bool
    is_single: bool = True


def open_body(
    descriptor: int, size: int, raw: RawFormat | None, max_seconds: float, means: Means
) -> Opened:
    """Open a body of `size` bytes; the arguments are those of `AudioStream`. Raises `AudioError`
    and `OSError`."""
    if size == 0:
        raise AudioError(BAD_AUDIO, "the body is empty")
    if raw is not None:
        return _single(_open_raw(descriptor, size, raw), size % unit(raw)[0] != 0)
    container = inspect(descriptor, size)
    if container is None:
        raise _unsupported("not recognised", means.media, _NO_HEADER, unrecognised=True)
    name, media = container.name, means.media
    if not container.readable:
        if name not in DEMUXERS:
            raise _unsupported(f"recognised as {name}", media)
        return _single(_open_media(descriptor, name, name, max_seconds, media))
    if container.links:
        codec = container.links[0].codec
        if codec is None or codec in ogg.READABLE:
            return _open_links(descriptor, container, means.extract)
        found = f"{codec} in {name}"
        other = _open_media(descriptor, name, found, max_seconds, media)
        return _single(other, container.truncated)
    try:
        source = _open_file(descriptor, container, means.patch)
    except AudioError as error:
        # libsndfile sometimes takes a codec that it lacks for damage.
        codec = codec_name(name, descriptor)
        if codec is None or error.failure.code == NO_SPACE:
            raise
        found = f"{codec} in {name}"
        if name not in DEMUXERS:
            raise _unsupported(f"recognised as {found}", media) from None
        source = _open_media(descriptor, name, found, max_seconds, media)
    return _single(source, container.truncated)


def _single(source: Source, truncated: bool = False) -> Opened:
    return Opened(source, iter(()), source.channels, truncated)


def _open_raw(descriptor: int, size: int, raw: RawFormat) -> Source:
    if raw.encoding == "g722":
        return G722File(descriptor, 0, size)
    return sound_file.open_raw(descriptor, raw)


def _open_file(descriptor: int, container: Container, patch: Patcher | None) -> Source:
    if container.g722 is not None:
        return G722File(descriptor, *container.g722)
    return sound_file.open_file(_patched(descriptor, container, patch), container.name)


def _open_links(descriptor: int, container: Container, extract: Extractor | None) -> Opened:
    """Open the first link that can be read; its error is that of the file if none can."""
    opened = (_try_link(descriptor, link, extract) for link in container.links)
    first_error: AudioError | None = None
    for source in opened:
        if isinstance(source, AudioError):
            first_error = first_error or source
            continue
        channels = max(source.channels, *(link.channels for link in container.links))
        further = (None if isinstance(one, AudioError) else one for one in opened)
        truncated = container.truncated or first_error is not None
        return Opened(source, further, channels, truncated, len(container.links) == 1)
    assert first_error is not None, "a file has a link"
    raise first_error


def _try_link(descriptor: int, link: Link, extract: Extractor | None) -> Source | AudioError:
    """Open a link; return the error of one that cannot be read."""
    try:
        return _open_link(descriptor, link, extract)
    except AudioError as error:
        if error.failure.code == NO_SPACE:
            raise
        return error


def _open_link(descriptor: int, link: Link, extract: Extractor | None) -> Source:
    if link.codec is not None and link.codec not in ogg.READABLE:
        raise _unsupported(f"recognised as {link.codec} in Ogg", None)
    size = link.end - link.start
    parts: Parts = ((link.start, size),)
    if link.codec == "FLAC":
        parts = ogg.flac_ranges(descriptor, link)
    try:
        own = extract(parts, size) if extract is not None else in_memory(descriptor, parts)
    except OSError as error:
        message = f"no space to take a part of the Ogg file: {error.strerror}"
        raise AudioError(NO_SPACE, message, _RETRY_SECONDS) from None
    try:
        source = sound_file.open_file(own, "Ogg", owned=True)
    except AudioError:
        os.close(own)
        raise
    return source


def _open_media(
    descriptor: int, name: str, found: str, max_seconds: float, media: OpenMedia | None
) -> Source:
    """Open a file that FFmpeg reads; `found` is its description for the client."""
    if media is None:
        raise _unsupported(f"recognised as {found}, which needs a node with --media auto", None)
    return media(descriptor, name, found, max_seconds)


def _unsupported(
    found: str, media: OpenMedia | None, advice: str = "", unrecognised: bool = False
) -> AudioError:
    kinds = ", ".join(sorted(READABLE if media is None else READABLE | DEMUXERS.keys()))
    message = f"the audio was {found}; this node reads {kinds} and raw samples{advice}"
    return AudioError(UNSUPPORTED_MEDIA_TYPE, message, unrecognised=unrecognised)


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
