"""Streams of live audio: passes their bytes to the worker, as fast as the worker takes them.

A stream has no body and is never on disk. Its connection is not read while the worker has not taken
the last seconds, or while stdout is not read: its segments go there at once, so each bounds what
the node holds of it. Loop thread only.
"""

from __future__ import annotations

from app.messages import Failure
from app.network.loop import Loop
from app.requests.dispatch import Dispatch
from app.requests.failures import audio_too_long
from app.requests.outcomes import Outcomes
from app.requests.output_watch import OutputWatch
from app.requests.stream import Stream
from app.requests.upload import Upload


class Streams:
    """The streams whose audio has not ended. `max_live` bounds their utterances in progress, and
    `max_seconds` the streams whose transcript is kept until their end."""

    def __init__(
        self,
        loop: Loop,
        dispatch: Dispatch,
        outcomes: Outcomes,
        max_live: int,
        max_seconds: float,
    ) -> None:
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._max_live = max_live
        self._max_seconds = max_seconds
        self._open: dict[int, Upload] = {}
        """By number of the request."""
        self._output_watch = OutputWatch(loop, self._look)
        dispatch.on_consumed = self._consumed

    @property
    def full(self) -> bool:
        """True if no further utterance of a stream can begin."""
        return self._dispatch.utterances >= self._max_live

    def open(self, upload: Upload) -> None:
        """Begin a stream that has its bytes of the quota."""
        raw = upload.in_flight.request.raw
        assert raw is not None, "live audio is raw samples"
        upload.stream = Stream(raw)
        self._open[upload.number] = upload
        self._dispatch.listen(upload.in_flight)

    def feed(self, upload: Upload, data: bytes | memoryview) -> Failure | None:
        """Pass the next bytes on. Return the reason if the stream must end."""
        stream = upload.stream
        assert stream is not None
        stream.received += len(data)
        keeps_text = upload.in_flight.request.reply == "transcript"
        if keeps_text and stream.seconds > self._max_seconds:
            return audio_too_long(self._max_seconds)
        self._dispatch.feed(upload.number, bytes(data))
        self._regulate(upload)
        return None

    def end(self, upload: Upload) -> None:
        """The client has ended the audio; the outcome follows."""
        self.forget(upload.number)
        self._dispatch.end(upload.number)

    def interrupt_all(self) -> list[Upload]:
        """End the audio of all streams, because the node ends; return them."""
        uploads = list(self._open.values())
        for upload in uploads:
            self.forget(upload.number)
            self._dispatch.interrupt(upload.number)
        return uploads

    def forget(self, number: int) -> Upload | None:
        """Return the upload whose stream has this number, if its audio has not ended, and pass on
        no more of it."""
        upload = self._open.pop(number, None)
        if upload is not None:
            upload.stream = None
            upload.connection.resume()
        return upload

    def _consumed(self, number: int, size: int) -> None:
        upload = self._open.get(number)
        if upload is not None and upload.stream is not None:
            upload.stream.consumed += size
            self._regulate(upload)

    def _regulate(self, upload: Upload) -> None:
        """Read the connection or not, after any change."""
        behind = self._outcomes.behind
        if behind or (upload.stream is not None and upload.stream.ahead):
            upload.connection.pause()
        else:
            upload.connection.resume()
        if behind:
            self._output_watch.schedule()

    def _look(self) -> None:
        """Go on with the streams that waited for stdout."""
        for upload in self._open.values():
            self._regulate(upload)
