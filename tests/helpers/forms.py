"""HTTP requests for the tests, byte by byte, without `app` and without a client library.

`form` makes a multipart body, `post` makes a request with it, and `answers` reads the responses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import h11

BOUNDARY = "XyZ0"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
INFERENCE = "/inference"

Part = tuple[str, bytes | str]


def form(*parts: Part, boundary: str = BOUNDARY, end: bool = True) -> bytes:
    """A multipart body. A part whose value is bytes becomes a file."""
    pieces = []
    for name, value in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += '; filename="a.wav"\r\nContent-Type: audio/wav'
        data = value if isinstance(value, bytes) else value.encode()
        pieces.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    if end:
        pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces)


def request(
    method: str, target: str, body: bytes | None = None, version: str = "1.1", **headers: str
) -> bytes:
    """A request. Header names are written with underscores."""
    fields = {"Host": "127.0.0.1:8080"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {target} HTTP/{version}", *(f"{n}: {v}" for n, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(target: str, *parts: Part, **headers: str) -> bytes:
    """A POST request that uploads a form with `parts`."""
    headers.setdefault("Content_Type", f"multipart/form-data; boundary={BOUNDARY}")
    return request("POST", target, form(*parts), **headers)


def chunked(data: bytes, size: int) -> bytes:
    """`data` in the chunked transfer encoding."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes
    informational: tuple[int, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The events of a server-sent event stream."""
        assert self.headers["content-type"] == "text/event-stream"
        *events, end = self.body.decode().split("\n\n")
        assert end == ""
        assert all(event.startswith("data: ") for event in events)
        return [json.loads(event.removeprefix("data: ")) for event in events]


def answers(data: bytes, *methods: str, closed: bool = False) -> list[Answer]:
    """The responses in `data` to requests with these methods. Any further byte is an error.
    `closed` says that the connection ended after `data`."""
    reader = h11.Connection(h11.CLIENT)
    reader.receive_data(data)
    found = []
    for number, method in enumerate(methods or ["POST"]):
        if number:
            reader.start_next_cycle()
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        early = []
        while isinstance(event := reader.next_event(), h11.InformationalResponse):
            early.append(event.status_code)
        if event is h11.NEED_DATA:
            break
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        status, body = event.status_code, bytearray()
        if closed:
            reader.receive_data(b"")
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage), event
        found.append(Answer(status, headers, bytes(body), tuple(early)))
    assert reader.trailing_data[0] == b"", "there are bytes after the last response"
    return found
