"""Plays live audio to servers in real time, by absolute deadlines.

A lane plays its sessions one after the other, each on a new connection; all lanes play at once, in
one thread. A delay of one packet does not move the next, and the greatest delay is part of the
result, so that a run on an overloaded machine is recognisable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from benchmark.live_wire import Message, Packet, Reader

_PATIENCE = 300.0
"""Seconds until a session without an answer is given up."""


class PlayError(Exception):
    """A server did not answer as its protocol says."""


@dataclass(frozen=True)
class Session:
    """What is sent on one connection. `not_before` is in seconds since the run began."""

    name: str
    address: tuple[str, int]
    packets: Iterable[Packet]
    reader: Reader
    source: str = "127.0.0.1"
    not_before: float = 0.0


@dataclass
class Played:
    """Times are those of one clock. `began` is that of the first sample, `stopped` that of the
    last packet; `delay` is the greatest of all packets."""

    name: str
    began: float = 0.0
    stopped: float = 0.0
    delay: float = 0.0
    messages: list[tuple[float, Message]] = field(default_factory=list)

    @property
    def answered(self) -> float:
        return self.messages[-1][0]

    @property
    def answer(self) -> Message:
        return self.messages[-1][1]


def play(
    lanes: Sequence[Iterable[Session]], gap: float = 0.5, seconds: float | None = None
) -> list[list[Played]]:
    """Play all lanes; return the sessions of each. `gap` seconds are between two sessions of a
    lane. After `seconds` no session begins."""
    return asyncio.run(_play(lanes, gap, seconds))


async def _play(
    lanes: Sequence[Iterable[Session]], gap: float, seconds: float | None
) -> list[list[Played]]:
    clock = asyncio.get_running_loop().time
    began = clock()

    async def lane(sessions: Iterable[Session]) -> list[Played]:
        played = []
        for session in sessions:
            due = max(began + session.not_before, clock() + gap if played else 0.0)
            if seconds is not None and due - began >= seconds:
                break
            await asyncio.sleep(due - clock())
            played.append(await _play_one(session))
        return played

    return list(await asyncio.gather(*(lane(sessions) for sessions in lanes)))


async def _play_one(session: Session) -> Played:
    clock = asyncio.get_running_loop().time
    result = Played(session.name)
    stream, writer = await asyncio.open_connection(*session.address, local_addr=(session.source, 0))
    listening = asyncio.create_task(_listen(stream, session.reader, result))
    try:
        result.began = clock()
        for due, data in session.packets:
            ahead = result.began + due - clock()
            if ahead > 0:
                await asyncio.sleep(ahead)
            result.delay = max(result.delay, clock() - result.began - due)
            writer.write(data)
            if listening.done():
                break
            await writer.drain()
        result.stopped = clock()
        await asyncio.wait_for(listening, _PATIENCE)
    except (asyncio.TimeoutError, ConnectionError) as error:
        raise PlayError(f"{session.name}: no answer: {error!r}") from None
    finally:
        listening.cancel()
        writer.close()
    return result


async def _listen(stream: asyncio.StreamReader, reader: Reader, result: Played) -> None:
    async for data in _received(stream):
        now = asyncio.get_running_loop().time()
        for message in reader.feed(data):
            result.messages.append((now, message))
            if reader.is_last(message):
                return
    raise PlayError(f"{result.name}: the server closed the connection without an answer")


async def _received(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await stream.read(1 << 16):
        yield data
