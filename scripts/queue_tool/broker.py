"""The connection to the broker: requests, JetStream's API, acknowledged publishing, direct reads.

A command connects once. After that nats-py reconnects by itself; a publish whose answer got lost is
repeated with the same message id, so that the broker stores it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.queue.broker import Access, BrokerError, connect
from queue_tool.explain import explain

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0
GIVE_UP_SECONDS = 60.0
"""A broker that is away for longer fails the command."""

_RETRY_SECONDS = 0.5
_UNHEARD = 3
"""Requests without a responder before the subject counts as unknown: a cluster that elects a new
leader has no responder for a moment."""

UNAVAILABLE, FORBIDDEN = "unavailable", "forbidden"

_FINAL = ("authorization violation", "does not require tls", "certificate verify failed")
"""Errors of a connection that another try does not mend."""


class QueueError(Exception):
    """A command failed; `code` is stable, the message says what to do. `maybe_stored` is true if a
    publish had no answer, so that its message may be on the broker."""

    def __init__(self, code: str, message: str, maybe_stored: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.maybe_stored = maybe_stored

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NoResponder(Exception):
    """Nothing on the broker handles this subject for this user."""


class ApiError(Exception):
    """JetStream rejected a request; `number` is its error code, such as 10059 (no such stream)."""

    def __init__(self, number: int, description: str, repeated: bool = False) -> None:
        super().__init__(f"{description} ({number})")
        self.number = number
        self.description = description
        self.repeated = repeated
        """True if an earlier attempt had no answer."""


@dataclass(frozen=True)
class Stored:
    """One message of a stream."""

    subject: str
    sequence: int
    stored_at: str
    """UTC, ISO 8601."""
    headers: dict[str, str]
    data: bytes


class Broker:
    """One connection. Use `connected`."""

    def __init__(self) -> None:
        self._forbidden: str | None = None
        self._last_error: BaseException | None = None
        self._rejected = asyncio.Event()
        self._lost = asyncio.Event()
        self.client: Client

    async def connect(self, access: Access) -> None:
        """Raises `QueueError` if the broker cannot be reached or rejects the credentials."""
        attempt = asyncio.ensure_future(
            connect(
                access,
                seconds=CONNECT_SECONDS,
                on_error=self._on_error,
                on_disconnect=self._give_up_waiting,
            )
        )
        # nats-py tries again after rejected credentials, too; a person should not wait for that.
        rejected = asyncio.ensure_future(self._rejected.wait())
        await asyncio.wait({attempt, rejected}, return_when=asyncio.FIRST_COMPLETED)
        rejected.cancel()
        try:
            if not attempt.done():
                attempt.cancel()
                raise BrokerError("rejected")
            self.client = attempt.result().client
        except BrokerError as error:
            with contextlib.suppress(asyncio.CancelledError, BrokerError):
                await attempt
            raise QueueError(UNAVAILABLE, explain(self._last_error or error, access.urls)) from None

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), 2)

    async def _give_up_waiting(self) -> None:
        self._lost.set()
        self._lost = asyncio.Event()

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if "permissions violation" in text:
            # The answer to a forbidden request, or to a forbidden reply subject, never comes.
            self._forbidden = str(error)
            await self._give_up_waiting()
        elif any(phrase in text for phrase in _FINAL):
            self._last_error = error
            self._rejected.set()
        elif not self._rejected.is_set():
            self._last_error = error

    @property
    def server_version(self) -> str:
        return str(self.client._server_info.get("version", ""))

    @property
    def server_id(self) -> str:
        return str(self.client._server_info.get("server_id", ""))

    @property
    def host(self) -> str | None:
        url = self.client.connected_url
        return None if url is None else url.hostname

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout: float = REPLY_SECONDS,
    ) -> Msg:
        """Send a request. Raises `NoResponder`, `QueueError` if this user may not send it, and
        `asyncio.TimeoutError`."""
        if not self.client.is_connected:
            raise asyncio.TimeoutError
        if self._forbidden is not None and "subscription" in self._forbidden.lower():
            raise self._refused(self._forbidden)
        # A lost connection takes the answer along, so the rest of the time is not waited.
        lost = asyncio.ensure_future(self._lost.wait())
        task = asyncio.ensure_future(
            self.client.request(subject, data, timeout=timeout, headers=headers)
        )
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        except nats.errors.NoRespondersError:
            raise NoResponder(subject) from None
        except nats.errors.TimeoutError:
            pass
        finally:
            lost.cancel()
            task.cancel()
        if self._forbidden is not None:
            raise self._refused(self._forbidden)
        raise asyncio.TimeoutError

    @staticmethod
    def _refused(reason: str) -> QueueError:
        message = "the broker does not allow this to the user of --queue-credentials"
        return QueueError(FORBIDDEN, f"{message} ({reason})")

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request to JetStream's API, such as `STREAM.INFO.ASR_JOBS`. Raises `ApiError`."""
        data = b"" if body is None else json.dumps(dict(body)).encode()
        try:
            reply = await self.request(f"$JS.API.{verb}", data)
        except (NoResponder, asyncio.TimeoutError):
            message = "JetStream does not answer: enable it on the broker"
            raise QueueError(UNAVAILABLE, message) from None
        answer: dict[str, Any] = json.loads(reply.data)
        if error := answer.get("error"):
            number = int(error.get("err_code", 0))
            if number in (10039, 10076):
                message = (
                    "JetStream is not open to this user: use the admin's --queue-credentials, and"
                    " enable JetStream on the broker"
                )
                raise QueueError(FORBIDDEN, message)
            raise ApiError(number, str(error.get("description", "")))
        return answer

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Store a message and return the acknowledgement. `headers` need `Nats-Msg-Id`, or the
        subject a limit of one message, because an unanswered publish is repeated. `repeated` of the
        result says so: a `duplicate` is then probably the first attempt.

        Raises `NoResponder`, `ApiError`, and `QueueError` after GIVE_UP_SECONDS without an answer.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        unheard, repeated = 0, False
        while True:
            try:
                reply = await self.request(subject, data, dict(headers))
                break
            except NoResponder:
                # A broker that starts again has no streams for a moment.
                unheard += 1
                if unheard >= _UNHEARD and not repeated:
                    raise
                if time.monotonic() > deadline:
                    raise _unanswered("no stream") from None
            except nats.errors.MaxPayloadError:
                message = (
                    f"the broker takes messages of at most {self.client.max_payload} bytes: set"
                    " 'max_payload: 1MB' in its configuration"
                )
                raise QueueError("too_large", message) from None
            except (asyncio.TimeoutError, nats.errors.Error) as error:
                repeated = True
                if time.monotonic() > deadline:
                    raise _unanswered(str(error) or "timeout") from None
            await asyncio.sleep(_RETRY_SECONDS)
        answer: dict[str, Any] = json.loads(reply.data)
        if error_fields := answer.get("error"):
            number, text = error_fields.get("err_code", 0), error_fields.get("description", "")
            raise ApiError(int(number), str(text), repeated)
        return {**answer, "repeated": repeated}

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a subject, by a direct read that a tenant may be allowed for
        its own subjects. Raises `NoResponder` if there is no such stream for this user."""
        return _stored(await self._read(f"$JS.API.DIRECT.GET.{stream}.{subject}", b""))

    async def next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """Return the first message of `subject`, which may have wildcards, from `sequence` on.
        Raises `NoResponder`."""
        body = json.dumps({"seq": sequence, "next_by_subj": subject}).encode()
        return _stored(await self._read(f"$JS.API.DIRECT.GET.{stream}", body))

    async def last_in(self, stream: str, subject: str) -> Stored | None:
        """Like `last`, for a user who may read the whole stream."""
        body = json.dumps({"last_by_subj": subject}).encode()
        return _stored(await self._read(f"$JS.API.DIRECT.GET.{stream}", body))

    async def _read(self, subject: str, body: bytes) -> Msg:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        unheard = 0
        while True:
            try:
                return await self.request(subject, body)
            except NoResponder:
                unheard += 1
                if unheard == _UNHEARD:
                    raise
            except (asyncio.TimeoutError, nats.errors.Error):
                if time.monotonic() > deadline:
                    raise QueueError(UNAVAILABLE, "the broker does not answer") from None
            await asyncio.sleep(_RETRY_SECONDS)


def _unanswered(reason: str) -> QueueError:
    message = (
        f"the broker does not answer ({reason}); it may have stored the message: submit again with"
        " the same --id"
    )
    return QueueError(UNAVAILABLE, message, maybe_stored=True)


def _stored(message: Msg) -> Stored | None:
    headers = {str(name): value for name, value in (message.headers or {}).items()}
    status = headers.get("Status")
    if status == "404":
        return None
    if status is not None:
        raise QueueError(UNAVAILABLE, f"the broker cannot read the stream (status {status})")
    return Stored(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        stored_at=headers["Nats-Time-Stamp"],
        headers=headers,
        data=message.data,
    )


@contextlib.asynccontextmanager
async def connected(access: Access) -> AsyncIterator[Broker]:
    """A connection for the length of a command. Raises `QueueError`."""
    broker = Broker()
    await broker.connect(access)
    try:
        yield broker
    finally:
        await broker.close()
