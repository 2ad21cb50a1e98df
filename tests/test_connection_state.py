"""The state of a connection by itself: the reason that it is not read, and the running timeout."""

from __future__ import annotations

from typing import Any

import pytest

from app.network.connection_state import LINGER_BYTES, ConnectionState, Lifecycle, ReadBlock
from app.network.outbox import MAX_SLOTS, Outbox
from app.network.timeouts import Awaited


class Protocol:
    """The part of a protocol that the state reads."""

    idle = True
    full = False
    reading_body = False


class Transport:
    handshaking = False


@pytest.fixture
def state() -> ConnectionState:
    protocol: Any = Protocol()
    transport: Any = Transport()
    return ConnectionState(protocol, transport, Outbox(), begun=True)


def test_new_connection_is_open_idle_and_read(state: ConnectionState) -> None:
    assert (state.open, state.idle, state.read_block()) == (True, True, None)
    assert state.takes_events()
    assert state.wants_read()
    assert not state.wants_write()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lifecycle": Lifecycle.CLOSED, "peer_ended": True}, ReadBlock.CLOSED),
        ({"lifecycle": Lifecycle.FINISHING, "peer_ended": True}, ReadBlock.END_OF_STREAM),
        ({"lifecycle": Lifecycle.FINISHING}, None),
        ({"lifecycle": Lifecycle.LINGERING, "undecided": True, "paused": True}, None),
        (
            {"lifecycle": Lifecycle.FINISHING, "discarded_bytes": LINGER_BYTES + 1},
            ReadBlock.DISCARD_LIMIT,
        ),
        ({"undecided": True, "paused": True, "undelivered": True}, ReadBlock.UNDECIDED),
        ({"paused": True, "undelivered": True}, ReadBlock.PAUSED),
        ({"undelivered": True}, ReadBlock.UNDELIVERED),
    ],
)
def test_read_block_names_the_first_reason(
    state: ConnectionState, changes: dict[str, Any], expected: ReadBlock | None
) -> None:
    for name, value in changes.items():
        setattr(state, name, value)
    assert state.read_block() is expected


def test_read_block_follows_protocol_and_outbox(state: ConnectionState) -> None:
    protocol: Any = state.protocol
    protocol.full = True
    assert state.read_block() is ReadBlock.PROTOCOL_FULL
    protocol.full = False
    for _ in range(MAX_SLOTS):
        state.outbox.expect(None, silent=False)
    assert state.read_block() is ReadBlock.REPLIES_DUE
    assert not state.takes_events()


def test_only_a_lingering_connection_ends_by_discarded_input(state: ConnectionState) -> None:
    state.lifecycle = Lifecycle.FINISHING
    assert not state.discard(LINGER_BYTES + 1)
    state.lifecycle = Lifecycle.LINGERING
    assert state.discard(1)


def test_awaited_selects_the_timeout(state: ConnectionState) -> None:
    protocol: Any = state.protocol
    transport: Any = state.transport
    assert state.awaited() is Awaited.NEXT
    state.begun = False
    assert state.awaited() is Awaited.HEADER
    state.begun, protocol.idle = True, False
    assert state.awaited() is Awaited.HEADER
    protocol.reading_body = True
    assert state.awaited() is Awaited.BODY
    state.paused = True
    assert state.awaited() is Awaited.NOTHING
    state.paused = False
    state.outbox.put(state.outbox.expect(None, silent=False), b"reply", final=True)
    assert state.awaited() is Awaited.TAKING
    transport.handshaking = True
    assert state.awaited() is Awaited.HANDSHAKE
    state.lifecycle = Lifecycle.LINGERING
    assert state.awaited() is Awaited.END
    state.lifecycle = Lifecycle.CLOSED
    assert state.awaited() is Awaited.NOTHING


def test_no_timeout_runs_while_a_reply_is_due(state: ConnectionState) -> None:
    state.outbox.expect(None, silent=False)
    assert state.awaited() is Awaited.NOTHING
    assert not state.idle
