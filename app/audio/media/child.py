"""The program of the child process: decodes one track of the file on descriptor 0 to descriptor 1.

The node starts it with `python -I -S -B` (`process.py`). It confines itself, imports PyAV, gives up
everything else, and only then reads the first byte of the file. Frames are sent as FFmpeg decodes
them; the node converts them. A gap in the timestamps is sent as silence, so that the times of the
transcript are those of the player. Child process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from app.audio.media import confinement, wire
from app.audio.media.formats import CODECS, PRECISE, TIMED

_OPTIONS = {
    "protocol_whitelist": "none",
    "codec_whitelist": ",".join(sorted(CODECS)),
    "max_streams": "64",
}
_DEMUXER_OPTIONS = {"mov": {"enable_drefs": "0", "use_absolute_path": "0"}}

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

_START_SECONDS = 0.02
_GAP_SECONDS = 0.25
"""Shortest gaps that become silence: before the first frame, and later, where clocks drift."""

_LONGEST_GAP_SECONDS = 60.0
"""Longest gap that becomes silence in a file that does not state its length."""

_PREROLL_SECONDS = 1.0
"""Time that decoders need before the first sample wanted: MP3's bit reservoir, Opus, SBR."""


class _Unusable(Exception):
    """The file cannot be decoded; the arguments are those of `wire.failed`."""


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
        except _Unusable as error:
            out.write(wire.failed(*error.args))
        out.flush()
        # Nothing is left to tear down, and the interpreter's end could need a forbidden call.
        os._exit(0)


def decode(body: BinaryIO, out: BinaryIO, demuxer: str, resume: wire.Resume | None) -> None:
    """Write the messages of `wire` for the sound in `body`. Raises `_Unusable`."""
    track = _Track(body, demuxer)
    frames = track.after(resume) if resume is not None else track.frames()
    writer = None if resume is None else track.writer(out, resume.rate, resume)
    for frame in frames:
        if writer is None:
            out.write(wire.opened(frame.sample_rate, len(frame.layout.channels), track.seconds))
            writer = track.writer(out, frame.sample_rate, None)
        writer.write(frame)
    if writer is None:
        raise _Unusable("damaged", "no frame can be decoded")
    out.write(wire.ended())


def open_container(body: BinaryIO, demuxer: str) -> Any:
    """Open `body` so that FFmpeg reads nothing else. Raises `_Unusable`."""
    import av

    body.seek(0)
    options = {**_OPTIONS, "format_whitelist": demuxer, **_DEMUXER_OPTIONS.get(demuxer, {})}
    try:
        return av.open(
            body,
            "r",
            format=demuxer,
            options=options,
            buffer_size=_BUFFER_BYTES,
            io_open=_refuse,
            **_metadata_options(av.__version__),
        )
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        raise _Unusable("damaged", str(getattr(error, "strerror", "") or "")) from None


def _metadata_options(version: str) -> dict[str, Any]:
    """Let PyAV before 19 accept tags that are not UTF-8; later versions always do."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _refuse(url: str, flags: int, options: object) -> object:
    raise PermissionError("a file may not name another")


class _Track:
    """The track of sound in `body` that a player would choose."""

    def __init__(self, body: BinaryIO, demuxer: str) -> None:
        self._body = body
        self._demuxer = demuxer
        self._open()

    def _open(self) -> None:
        self._container = open_container(self._body, self._demuxer)
        self._stream = _choose(self._container)
        # A thread would need a system call that is forbidden.
        self._stream.codec_context.thread_count = 1
        length = self._stream.duration
        if length:
            self.seconds: float | None = float(length * self._stream.time_base)
        elif self._container.duration:
            self.seconds = self._container.duration / 1e6
        else:
            self.seconds = None

    def writer(self, out: BinaryIO, rate: int, resume: wire.Resume | None) -> _Writer:
        start = self._container.start_time
        base = self._stream.time_base
        zero = None if start is None else round(start / 1_000_000 / base)
        scale = float(base * rate) if self._demuxer in TIMED else None
        return _Writer(out, rate, scale, zero, self.seconds, resume)

    def frames(self) -> Iterator[Any]:
        """Yield all frames. A packet that cannot be decoded is left out."""
        from av import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
            except FFmpegError:
                return
            try:
                decoded = packet.decode()
            except (FFmpegError, ValueError):
                continue
            yield from (frame for frame in decoded if frame.samples > 0)

    def after(self, place: wire.Resume) -> Iterator[Any]:
        """Yield the frame at `place` and all that follow."""
        if self._demuxer in PRECISE and place.time != wire.NO_TIME:
            yield from self._from_time(place)
        if not self._found:
            self._open()
            for number, frame in enumerate(self.frames(), 1):
                if number >= place.frames:
                    yield frame

    _found = False

    def _from_time(self, place: wire.Resume) -> Iterator[Any]:
        from av import FFmpegError

        preroll = round(_PREROLL_SECONDS / self._stream.time_base)
        try:
            self._container.seek(place.time - preroll, stream=self._stream)
        except FFmpegError:
            return
        for frame in self.frames():
            self._found = self._found or frame.pts == place.time
            if self._found:
                yield frame
            elif frame.pts is None or frame.pts > place.time:
                return


def _choose(container: Any) -> Any:
    """Return the first track that is marked as default and has a known codec, else the first with
    a known codec. Raises `_Unusable`."""
    tracks = container.streams.audio
    if not tracks:
        raise _Unusable("track", "")
    known = [one for one in tracks if one.codec_context and one.codec_context.codec.name in CODECS]
    if not known:
        codecs = [one.codec_context.name if one.codec_context else "unknown" for one in tracks]
        raise _Unusable("codec", codecs[0])
    return min(known, key=lambda one: not _is_default(one))


def _is_default(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default)


class _Writer:
    """Writes frames, and silence for gaps in their timestamps, at `rate`; `scale` are samples for
    each unit of time, None without reliable times; `zero` is the time at which the file begins."""

    def __init__(
        self,
        out: BinaryIO,
        rate: int,
        scale: float | None,
        zero: int | None,
        seconds: float | None,
        resume: wire.Resume | None,
    ) -> None:
        self._out = out
        self._rate = rate
        self._scale = scale
        self._seconds = seconds
        self._done = 0
        self._anchor = None if zero is None else (zero, 0)
        """A time and the sample that belongs to it."""
        self._shortest = _START_SECONDS
        self._resume = resume

    def write(self, frame: Any) -> None:
        length = round(frame.samples * self._rate / frame.sample_rate)
        if self._resume is not None:
            # This frame was sent by the previous child.
            end, self._done = self._resume.done, self._resume.done + self._resume.gap
            self._anchor = None if frame.pts is None else (frame.pts, end - length)
            self._resume = None
            self._shortest = _GAP_SECONDS
            return
        if gap := self._gap(frame.pts):
            self._done += gap
            self._out.write(wire.silence(gap))
        self._done += length
        self._send(frame)

    def _gap(self, time: int | None) -> int:
        if time is None or self._scale is None:
            return 0
        shortest, self._shortest = self._shortest, _GAP_SECONDS
        if self._anchor is None:
            self._anchor = (time, self._done)
            return 0
        gap = round(self._anchor[1] + (time - self._anchor[0]) * self._scale) - self._done
        if abs(gap) <= shortest * self._rate:
            return 0
        longest = _LONGEST_GAP_SECONDS
        if self._seconds is not None:
            longest = self._seconds + 1 - self._done / self._rate
        if 0 < gap <= longest * self._rate:
            return gap
        # The clock has jumped; the sound goes on.
        self._anchor = (time, self._done)
        return 0

    def _send(self, frame: Any) -> None:
        kind, channels = frame.format.name, len(frame.layout.channels)
        planes = 1 if frame.format.is_packed else channels
        size = frame.samples * frame.format.bytes * (channels // planes)
        time = wire.NO_TIME if frame.pts is None else frame.pts
        head = wire.frame_head(
            time, self._done, frame.samples, frame.sample_rate, channels, kind, size * planes
        )
        self._out.write(head)
        for plane in frame.planes[:planes]:
            # FFmpeg pads planes.
            self._out.write(memoryview(plane)[:size])
