"""The form of one upload: its checks, its audio, and the request that its fields make.

Loop thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.messages import TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, BodyData, Request
from app.protocols.http.dialect import Dialect, ReplyOptions, read
from app.protocols.http.form import Form, FormError, boundary_of
from app.protocols.http.site import Site


class UploadForm:
    """A form with audio. `length` is that of the body, None if it comes in chunks.

    All methods raise `FormError`.
    """

    def __init__(self, site: Site, length: int | None, headers: Mapping[bytes, str]) -> None:
        self._site = site
        self._check_size(length or 0)
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            message = "Content-Encoding is not supported; send the form as it is"
            raise FormError(UNSUPPORTED_MEDIA_TYPE, message)
        self._form = Form(boundary_of(headers.get(b"content-type")))

    def feed(self, data: bytes, size: int) -> Iterator[BodyData]:
        """Yield the audio in the next bytes; `size` is that of the body so far."""
        self._check_size(size)
        return (BodyData(piece) for piece in self._form.feed(data) if piece)

    def finish(self, dialect: Dialect, request: Request) -> tuple[Request, ReplyOptions]:
        """Return `request` with the form's values, and the options of its reply."""
        return read(self._form.finish(), dialect, request, self._site.served)

    def _check_size(self, size: int) -> None:
        if size > self._site.max_body:
            message = f"the body is over this node's limit of {self._site.max_body} bytes"
            raise FormError(TOO_LARGE, message)
