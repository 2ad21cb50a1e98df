"""Certificates for the tests, made by the commands in docs/security.md.

The `openssl` command makes them instead of a package, so that the documented commands are tested
and no package is needed. The tests skip without `openssl`.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"


@dataclass(frozen=True)
class Certificates:
    """The files of one certificate authority."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def node(self) -> tuple[Path, Path]:
        """The node's certificate and key."""
        return self.directory / "node.pem", self.directory / "node.key"

    @property
    def client(self) -> tuple[Path, Path]:
        return self.directory / "client.pem", self.directory / "client.key"

    def trusting(self, *, showing: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority and can present a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        # This is the default from Python 3.13 on.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if showing is not None:
            context.load_cert_chain(*showing)
        return context


def make(directory: Path) -> Certificates:
    """Run the commands of docs/security.md in `directory`."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## Certificates\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        ["sh", "-ec", block[1]], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode and "OpenSSL 3" not in _version():
        pytest.skip("the openssl command is older than 3.0")
    assert done.returncode == 0, done.stderr
    return Certificates(directory)


def _version() -> str:
    return subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout
