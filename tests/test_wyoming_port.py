"""The settings of the Wyoming port and its access control."""

from __future__ import annotations

import ipaddress

import pytest

from app import __version__
from app.decoding.transcriber import ModelInfo
from app.messages import Send
from app.network import mdns as announce
from app.protocols.base import Protocol
from app.protocols.model_names import ModelNames
from app.settings.settings import Settings, read
from app.startup.wyoming_port import announcement, fault, wyoming_port

MODEL = ModelInfo("tiny-q8_0", True, frozenset({"en", "de"}))
NAMES = ModelNames(MODEL.name, frozenset({MODEL.name}))
OUTSIDE = ["--wyoming-port", "0", "--host", "0.0.0.0"]


def settings(*arguments: str) -> Settings:
    return read(["--model", "tiny", *arguments], {})


@pytest.mark.parametrize(
    ("arguments", "protected"),
    [
        (["--host", "0.0.0.0"], True),
        (["--wyoming-port", "0"], True),
        (["--wyoming-port", "0", "--host", "localhost"], True),
        (OUTSIDE, False),
        ([*OUTSIDE, "--wyoming-open"], True),
    ],
)
def test_fault_accepts_valid_settings(arguments: list[str], protected: bool) -> None:
    assert fault(settings(*arguments), protected) is None


@pytest.mark.parametrize(
    ("arguments", "protected", "word"),
    [
        (OUTSIDE, True, "--wyoming-open"),
        # --wyoming-allow restricts the addresses but does not protect the data.
        ([*OUTSIDE, "--wyoming-allow", "10.0.0.0/8"], True, "--wyoming-open"),
        (["--announce"], False, "--wyoming-port"),
        (["--announce", "--wyoming-port", "0"], False, "--host"),
    ],
)
def test_fault_names_the_missing_option(arguments: list[str], protected: bool, word: str) -> None:
    sentence = fault(settings(*arguments), protected)
    assert sentence is not None
    assert word in sentence


def test_fault_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce.importlib.util, "find_spec", lambda name: None)
    sentence = fault(settings(*OUTSIDE, "--announce"), False)
    assert sentence is not None
    assert "requirements-announce.txt" in sentence


def test_port_has_neither_token_nor_tls() -> None:
    assert wyoming_port(settings(), MODEL, NAMES) is None
    port = wyoming_port(settings("--wyoming-port", "10300", "--host", "::1"), MODEL, NAMES)
    assert port is not None
    assert (port.name, port.host, port.number) == ("wyoming", "::1", 10_300)
    # Wyoming supports neither.
    assert not port.needs_token
    assert port.tls is None
    assert port.allowed is None
    assert f'"version": "{__version__}"'.encode() in _info(port.new_protocol())


def test_name_tells_nodes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "kitchen.example")

    def name(*arguments: str) -> str:
        port = wyoming_port(settings("--wyoming-port", "0", *arguments), MODEL, NAMES)
        assert port is not None
        return _info(port.new_protocol()).decode()

    assert '"name": "node-whisper tiny-q8_0 on kitchen"' in name()
    assert '"name": "hall"' in name("--name", "hall")


def test_port_admits_only_allowed_networks() -> None:
    port = wyoming_port(
        settings("--wyoming-port", "0", "--wyoming-allow", "10.0.0.0/8"), MODEL, NAMES
    )
    assert port is not None
    assert port.admits(ipaddress.ip_address("10.1.2.3"))
    assert not port.admits(ipaddress.ip_address("11.1.2.3"))
    assert not port.admits(ipaddress.ip_address("::1"))


def test_port_is_announced_only_if_set() -> None:
    assert announcement(settings(*OUTSIDE), 10_300) is None


def _info(protocol: Protocol) -> bytes:
    protocol.feed(b'{"type": "describe"}\n')
    event = protocol.next_event()
    assert isinstance(event, Send)
    return event.data
