"""The connection to the broker: the one module that imports nats-py.

`connect` serves the node and `scripts/queue` alike. `app/queue/jetstream.py` has the node's
operations. Queue thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from app.queue import names
from app.queue.credentials import Credentials, read_credentials

Result = TypeVar("Result")

_REQUEST_SECONDS = 10.0
"""Time for an answer of the broker; a slow card syncs a message in some tens of milliseconds."""


class BrokerError(Exception):
    """The broker is away, or did not do it; a later try may succeed."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the broker. `owner` is the owner of the reply subjects (`names.inbox`)."""

    urls: tuple[str, ...]
    credentials: Credentials
    tls: ssl.SSLContext | None
    owner: str
    name: str


def access(
    urls: tuple[str, ...], credentials: Path | None, ca: Path | None, *, owner: str, name: str
) -> Access:
    """Read the files. Raises `CredentialsError`, and `OSError` (`ssl.SSLError`) for `ca`."""
    encrypted = ca is not None or any(url.startswith("tls://") for url in urls)
    context = ssl.create_default_context(cafile=ca) if encrypted else None
    return Access(urls, read_credentials(credentials), context, owner, name)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came; `reply` is empty if no answer is wanted."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    reply: str


class _Client(Client):
    """A client that never sends its credentials unencrypted if TLS is asked for."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._must_encrypt = access.tls is not None
        # nats-py sets it only with the package nkeys, which has no wheel.
        self._public_nkey = access.credentials.public_key

    def _connect_command(self) -> bytes:
        if self._must_encrypt and not self._server_info.get("tls_required"):
            raise NatsError("nats: the broker does not require TLS; set tls in its configuration")
        return super()._connect_command()


async def connect(
    access: Access,
    *,
    reconnect: bool = True,
    seconds: float = 5.0,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
    on_disconnect: Callable[[], Awaitable[None]] | None = None,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Broker:
    """Connect once, within about `seconds`, and, with `reconnect`, again whenever the connection
    ends. Raises `BrokerError`."""
    given = access.credentials
    client = _Client(access)

    async def ignore(_error: Exception) -> None:
        pass

    try:
        # Without a time limit nats-py waits for an absent broker forever (nats.py#645).
        await asyncio.wait_for(
            client.connect(
                servers=list(access.urls),
                name=access.name,
                user=given.user,
                password=given.password,
                signature_cb=given.sign,
                user_jwt_cb=None if given.jwt is None else (given.jwt or "").encode,
                tls=access.tls,
                inbox_prefix=names.inbox(access.owner).encode(),
                allow_reconnect=reconnect,
                max_reconnect_attempts=-1,
                # Nodes that lost the same broker do not all return at the same moment.
                reconnect_time_wait=random.uniform(0.2, 0.8),  # type: ignore[arg-type]
                connect_timeout=min(5, max(1, int(seconds))),
                # A link that swallows packets is noticed within half a minute.
                ping_interval=10,
                error_cb=on_error or ignore,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
            ),
            seconds,
        )
    except (NatsError, OSError, asyncio.TimeoutError) as error:
        await client.close()
        raise BrokerError(_reason(error)) from error
    return Broker(client)


class Broker:
    """The connection. Every method raises `BrokerError`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        """nats-py's, for what the node does not do."""
        self._subscriptions: dict[str, Subscription] = {}
        self._lost = asyncio.Event()

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    def lose(self) -> None:
        """The connection has ended: nothing that waits for an answer will get one."""
        lost, self._lost = self._lost, asyncio.Event()
        lost.set()

    async def unless_lost(self, work: Awaitable[Result], seconds: float) -> Result:
        """Wait for an answer, at most `seconds` and not beyond the end of the connection."""
        lost = asyncio.ensure_future(self._lost.wait())
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise BrokerError("the connection was lost" if lost.done() else "no answer")
            return task.result()
        finally:
            lost.cancel()
            task.cancel()

    def new_inbox(self) -> str:
        return self.client.new_inbox()

    async def subscribe(self, subject: str, take: Callable[[Message], None]) -> None:
        """Call `take` with every message of `subject`, also after a reconnection."""

        async def take_message(message: Msg) -> None:
            take(_message(message))

        try:
            self._subscriptions[subject] = await self.client.subscribe(subject, cb=take_message)
        except (NatsError, OSError) as error:
            raise BrokerError(_reason(error)) from error

    async def unsubscribe(self, subject: str) -> None:
        """End a subscription, once what was sent for it is taken. It may have ended already."""
        subscription = self._subscriptions.pop(subject, None)
        if subscription is None:
            return
        try:
            await subscription.drain()  # type: ignore[no-untyped-call]
        except (NatsError, OSError, asyncio.TimeoutError) as error:
            raise BrokerError(_reason(error)) from error

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        # Disconnected, nats-py would keep it and send it when nobody waits for it any more.
        if not self.connected:
            raise BrokerError("not connected")
        try:
            await self.client.publish(subject, data, reply=reply)
        except (NatsError, OSError) as error:
            raise BrokerError(_reason(error)) from error

    async def request(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        seconds: float = _REQUEST_SECONDS,
    ) -> Message:
        """Publish, and return the answer within `seconds`."""
        if not self.connected:
            raise BrokerError("not connected")
        try:
            answer = self.client.request(
                subject, data, seconds, headers=dict(headers) if headers else None
            )
            return _message(await self.unless_lost(answer, seconds))
        except NoRespondersError:
            raise BrokerError(f"{subject}: nobody answers; run scripts/queue init") from None
        except (NatsError, OSError, asyncio.TimeoutError) as error:
            raise BrokerError(_reason(error)) from error

    async def close(self) -> None:
        """Send what is written, and close. Raises nothing."""
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError, ValueError):
            await self.client.flush(1)
        await self.client.close()


def _message(message: Msg) -> Message:
    headers = {str(name): value for name, value in (message.headers or {}).items()}
    return Message(message.subject, headers, message.data, message.reply)


def _reason(error: BaseException) -> str:
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)) and not str(error):
        return "no answer"
    return str(error) or type(error).__name__
