"""The body of one upload: its form, its checks, its audio, and the request that its fields make.

A body is a form with the audio in a field, the audio itself with the fields in the query, or a JSON
object. Loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol as Interface
from urllib.parse import parse_qs

from app.messages import (
    BAD_FIELD,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    BodyData,
    RawFormat,
    Request,
    Task,
)
from app.protocols.http.audio_body import AudioBody, is_audio, raw_format
from app.protocols.http.dialect import Dialect, ReplyOptions, read
from app.protocols.http.form import MAX_FIELD_BYTES, MAX_PARTS, Fields, Form, FormError, boundary_of
from app.protocols.http.input import bearer_token
from app.protocols.http.json_body import JsonBody
from app.protocols.http.site import Site

_OTHERS = (
    "the body must be multipart/form-data with the audio in the field {}, the audio itself (audio/*"
    " or application/octet-stream), or JSON with the audio in base64"
)


class _Body(Interface):
    def feed(self, data: bytes) -> Iterable[memoryview]: ...

    def finish(self) -> Fields: ...


class UploadForm:
    """An upload in a `dialect`. `length` is that of the body, None if it comes in chunks; `query`
    is that of the address.

    All methods raise `FormError`.
    """

    def __init__(
        self,
        site: Site,
        dialect: Dialect,
        length: int | None,
        headers: Mapping[bytes, str],
        query: str,
    ) -> None:
        self._site = site
        self._dialect = dialect
        self._check_size(length or 0)
        codings = headers.get(b"content-encoding", "").lower().split(",")
        if {coding.strip() for coding in codings} - {"identity", ""}:
            message = "Content-Encoding is not supported; send the body as it is"
            # RFC 9110, section 12.5.3: it tells this 415 from those of other reasons.
            raise FormError(UNSUPPORTED_MEDIA_TYPE, message, (("Accept-Encoding", "identity"),))
        self._query = _query_fields(query)
        self._raw: RawFormat | None = None
        self._body = self._new_body(headers.get(b"content-type", ""), length)

    def feed(self, data: bytes, size: int) -> Iterator[BodyData]:
        """Yield the audio in the next bytes; `size` is that of the body so far."""
        self._check_size(size)
        return (BodyData(piece) for piece in self._body.feed(data) if piece)

    def finish(self, request: Request) -> tuple[Request, ReplyOptions]:
        """Return `request` with the values of the fields, and the options of its reply."""
        fields = self._query | self._body.finish()
        request = replace(request, raw=self._raw)
        return read(fields, self._dialect, request, self._site.served)

    def _new_body(self, content_type: str, length: int | None) -> _Body:
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            return JsonBody(self._dialect.file_field, length)
        if is_audio(kind):
            self._raw = raw_format(content_type)
            return AudioBody()
        if kind != "multipart/form-data":
            raise FormError(UNSUPPORTED_MEDIA_TYPE, _OTHERS.format(self._dialect.file_field))
        return Form(boundary_of(content_type), self._dialect.file_field)

    def _check_size(self, size: int) -> None:
        if size > self._site.max_body:
            message = f"the body is over this node's limit of {self._site.max_body} bytes"
            raise FormError(TOO_LARGE, message)


def new_request(request_id: str, task: Task, headers: Mapping[bytes, str]) -> Request:
    """Return the request in the headers of an upload, without the values of its fields."""
    declared = headers.get(b"content-length")
    return Request(
        id=request_id,
        content_length=None if declared is None else int(declared),
        task=task,
        keep_alive=True,
        token=bearer_token(headers),
    )


def _query_fields(query: str) -> Fields:
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_PARTS, errors="strict")
    except ValueError:
        message = f"the query must be UTF-8 and have at most {MAX_PARTS} fields"
        raise FormError(BAD_FIELD, message) from None
    for name, values in fields.items():
        if any(len(value.encode()) > MAX_FIELD_BYTES for value in values):
            raise FormError(BAD_FIELD, f"{name[:40]} has more than {MAX_FIELD_BYTES} bytes")
    return fields
