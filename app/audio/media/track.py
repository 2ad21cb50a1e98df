"""The track of sound of a file, opened and decoded by FFmpeg so that it reads nothing else.

PyAV is imported inside the functions, after the child has confined itself. Child process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from app.audio.media import wire
from app.audio.media.formats import CODECS, PRECISE, TIMED

_OPTIONS = {
    "protocol_whitelist": "none",
    "codec_whitelist": ",".join(sorted(CODECS)),
    "max_streams": "64",
}
_DEMUXER_OPTIONS = {"mov": {"enable_drefs": "0", "use_absolute_path": "0"}}

_BUFFER_BYTES = 1 << 16

_PREROLL_SECONDS = 1.0
"""Time that decoders need before the first sample wanted: MP3's bit reservoir, Opus, SBR."""


class Unusable(Exception):
    """The file cannot be decoded; the arguments are those of `wire.failed`."""


class Track:
    """The track of sound in `body` that a player would choose."""

    def __init__(self, body: BinaryIO, demuxer: str) -> None:
        self._body = body
        self._demuxer = demuxer
        self._found = False
        """Whether a frame was found by its timestamp."""
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

    @property
    def start(self) -> int | None:
        """The time at which the file begins, in units of the track; None if it states none."""
        start = self._container.start_time
        return None if start is None else round(start / 1_000_000 / self._stream.time_base)

    def scale(self, rate: int) -> float | None:
        """Return the samples at `rate` Hz for each unit of time; None without reliable times."""
        return float(self._stream.time_base * rate) if self._demuxer in TIMED else None

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
    a known codec. Raises `Unusable`."""
    tracks = container.streams.audio
    if not tracks:
        raise Unusable("track", "")
    known = [one for one in tracks if one.codec_context and one.codec_context.codec.name in CODECS]
    if not known:
        codecs = [one.codec_context.name if one.codec_context else "unknown" for one in tracks]
        raise Unusable("codec", codecs[0])
    return min(known, key=lambda one: not _is_default(one))


def _is_default(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default)


def open_container(body: BinaryIO, demuxer: str) -> Any:
    """Open `body` so that FFmpeg reads nothing else. Raises `Unusable`."""
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
        raise Unusable("damaged", str(getattr(error, "strerror", "") or "")) from None


def _metadata_options(version: str) -> dict[str, Any]:
    """Let PyAV before 19 accept tags that are not UTF-8; later versions always do."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _refuse(url: str, flags: int, options: object) -> object:
    raise PermissionError("a file may not name another")
