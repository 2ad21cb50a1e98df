"""The program of the child process: decodes one track of the file on descriptor 0 to descriptor 1.

The node starts it with `python -I -S -B` (`process.py`). It confines itself, imports PyAV, gives up
everything else, and only then reads the first byte of the file. Child process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import BinaryIO

from app.audio.media import confinement, wire
from app.audio.media.frame_writer import FrameWriter
from app.audio.media.track import Track, Unusable

_MODULES = (
    "av",
    "av.audio.codeccontext",
    "av.audio.stream",
    "av.sidedata.sidedata",
    "av.stream",
    "av.subtitles.codeccontext",
    "av.subtitles.stream",
    "av.video.codeccontext",
    "av.video.stream",
)
"""PyAV and the modules that it would import at their first use, which is too late."""

_BUFFER_BYTES = 1 << 16


def main(argument: str) -> None:
    """Decode as `argument` says: JSON of the parent's process id, the demuxer, the folder of PyAV,
    the limit of processor time in seconds, and where to continue, the fields of `wire.Resume`."""
    parent, demuxer, packages, cpu_seconds, place = json.loads(argument)
    confinement.bind_to_parent(parent)
    confinement.limit(cpu_seconds)
    sys.path.append(packages)
    for module in _MODULES:
        importlib.import_module(module)
    with open(0, "rb", buffering=0) as body, open(1, "wb", buffering=_BUFFER_BYTES) as out:
        confinement.seal()
        resume = None if place is None else wire.Resume(*place)
        try:
            decode(body, out, demuxer, resume)
        except Unusable as error:
            out.write(wire.failed(*error.args))
        out.flush()
        # Nothing is left to tear down, and the interpreter's end could need a forbidden call.
        os._exit(0)


def decode(body: BinaryIO, out: BinaryIO, demuxer: str, resume: wire.Resume | None) -> None:
    """Write the messages of `wire` for the sound in `body`. Raises `Unusable`."""
    track = Track(body, demuxer)
    frames = track.after(resume) if resume is not None else track.frames()
    writer = None if resume is None else FrameWriter(out, track, resume.rate, resume)
    for frame in frames:
        if writer is None:
            out.write(wire.opened(frame.sample_rate, len(frame.layout.channels), track.seconds))
            writer = FrameWriter(out, track, frame.sample_rate, None)
        writer.write(frame)
    if writer is None:
        raise Unusable("damaged", "no frame can be decoded")
    out.write(wire.ended())
