"""The credentials of the queue, at a real broker, and its addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker
from nacl.signing import SigningKey

from app.queue import broker as connection
from app.queue.broker import BrokerError, access, connect
from app.queue.credentials import (
    CredentialsError,
    read_credentials,
    read_urls,
    readable_by_others,
)


def encoded(data: bytes) -> str:
    checksum = binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data + checksum).decode().rstrip("=")


def new_user() -> tuple[str, str]:
    """A new seed and its public key, by the layout that nats-io/nkeys describes."""
    secret = os.urandom(32)
    public = encoded(bytes([20 << 3]) + bytes(SigningKey(secret).verify_key))
    prefix = bytes([18 << 3 | 20 << 3 >> 5, (20 << 3 & 31) << 3])
    return encoded(prefix + secret), public


def try_to_connect(broker: Broker, credentials: Path | None, url: str | None = None) -> None:
    async def attempt() -> None:
        wish = access((url or broker.url,), credentials, None, owner="node", name="test")
        link = await connect(wish, reconnect=False)
        await link.subscribe(f"{link.new_inbox()}.*", lambda _message: None)
        await link.close()

    asyncio.run(attempt())


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "credentials"
        path.write_text(text)
        return path

    return write


def test_broker_takes_user_and_password(make_broker: Any, file: Callable[[str], Path]) -> None:
    broker = make_broker('authorization { users = [ {user: "n", password: "p:w"} ] }')
    try_to_connect(broker, file("n:p:w\n"))
    for wrong in (None, file("n:no")):
        with pytest.raises(BrokerError, match="uthorization"):
            try_to_connect(broker, wrong)


def test_broker_takes_the_seed_of_an_nkey(make_broker: Any, file: Callable[[str], Path]) -> None:
    seed, public = new_user()
    broker = make_broker(f'authorization {{ users = [ {{nkey: "{public}"}} ] }}')
    try_to_connect(broker, file(seed + "\n"))
    other, _ = new_user()
    with pytest.raises(BrokerError, match="uthorization"):
        try_to_connect(broker, file(other))


def test_creds_file_holds_a_token_and_a_seed(file: Callable[[str], Path]) -> None:
    seed, public = new_user()
    text = (
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n"
        "***** IMPORTANT *****\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    found = read_credentials(file(text))
    assert (found.jwt, found.public_key) == ("eyJ0.eyJq.c2ln", public)
    assert found.sign is not None
    assert len(base64.b64decode(found.sign("nonce"))) == 64


@pytest.mark.parametrize("text", ["", "user", "user:", "a:b\nc:d", "SUAAAA", "S" + "A" * 57])
def test_other_files_are_rejected(file: Callable[[str], Path], text: str) -> None:
    with pytest.raises(CredentialsError):
        read_credentials(file(text))


def test_damaged_seed_is_rejected(file: Callable[[str], Path]) -> None:
    seed, _ = new_user()
    damaged = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    with pytest.raises(CredentialsError, match="no valid key"):
        read_credentials(file(damaged))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"cannot read .*absent"):
        read_credentials(tmp_path / "absent")


def test_files_that_others_can_read_are_noticed(file: Callable[[str], Path]) -> None:
    path = file("a:b")
    path.chmod(0o644)
    assert readable_by_others(path)
    path.chmod(0o600)
    assert not readable_by_others(path)


def test_secrets_are_not_shown() -> None:
    shown = repr(connection.Access(("nats://b",), read_credentials(None), None, "node", "n"))
    assert "password" not in shown


def test_urls_are_separated_by_commas() -> None:
    assert read_urls("nats://a:4222, nats://b") == ("nats://a:4222", "nats://b")
    assert read_urls("tls://[::1]:4222") == ("tls://[::1]:4222",)


@pytest.mark.parametrize("text", ["nats://u:secret@b", "nats://secret@b:4222"])
def test_url_with_a_password_is_rejected_without_repeating_it(text: str) -> None:
    with pytest.raises(CredentialsError, match="--queue-credentials") as caught:
        read_urls(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", ",", "b:4222", "http://b", "nats://", "nats://b:x", "nats://b/p", "nats://a,tls://b"],
)
def test_other_urls_are_rejected(text: str) -> None:
    with pytest.raises(CredentialsError):
        read_urls(text)


def test_credentials_are_not_sent_to_a_broker_without_tls(
    broker: Broker, file: Callable[[str], Path]
) -> None:
    with pytest.raises(BrokerError, match="does not require TLS"):
        try_to_connect(broker, file("u:p"), broker.url.replace("nats://", "tls://"))


def test_absent_broker_is_an_error_and_not_a_wait(broker: Broker) -> None:
    broker.kill()
    with pytest.raises(BrokerError):
        try_to_connect(broker, None)
