"""Opens files for FFmpeg: finds PyAV, chooses the demuxer, and shares the places for children.

PyAV is looked for at each file and never imported here, so that a node that never receives such a
file spends nothing on it. Worker thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path

from app.audio.audio_error import AudioError
from app.audio.media import wire
from app.audio.media.completeness import breaks_off
from app.audio.media.formats import DEMUXERS, EXACT
from app.audio.media.media_file import MediaFile
from app.audio.media.process import Child
from app.audio.media.slots import Slots
from app.messages import UNSUPPORTED_MEDIA_TYPE

INSTALL = "python -m pip install -r requirements-media.txt"
"""The command for the node's environment, in a clone."""


class MediaOpener:
    """Opens files with at most `children` child processes at one time; further files wait for
    their turn."""

    def __init__(self, children: int = 1) -> None:
        self._slots = Slots(children)

    def open(self, descriptor: int, name: str, found: str, max_seconds: float) -> MediaFile:
        """Open the file in the container `name`, one of `DEMUXERS`; see
        `app.audio.source.OpenMedia`. Raises `AudioError` and `OSError`."""
        packages = _packages()
        if packages is None:
            raise AudioError(
                UNSUPPORTED_MEDIA_TYPE,
                f"the audio was recognised as {found}, which this node reads once PyAV is"
                f" installed: {INSTALL}",
            )
        demuxer = DEMUXERS[name]

        def start(place: wire.Resume | None) -> Child:
            return Child(descriptor, demuxer, packages, max_seconds, place)

        truncated = breaks_off(name, descriptor, os.fstat(descriptor).st_size)
        return MediaFile(name, demuxer in EXACT, truncated, start, self._slots)


def _packages() -> str | None:
    """Return the folder that holds PyAV; None if it is not installed."""
    # The package may have been installed since the last file.
    importlib.invalidate_caches()
    found = importlib.util.find_spec("av")
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parents[1])
