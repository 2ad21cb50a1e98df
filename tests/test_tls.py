"""app/network/tls.py: the files of a context, and the errors for invalid ones."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import Certificates
from structlog.testing import capture_logs

from app.network.tls import TlsError, server_context


def test_no_files_mean_no_tls() -> None:
    assert server_context(None, None, None) is None


def test_context_accepts_tls_1_2_and_later(certificates: Certificates) -> None:
    with capture_logs() as log:
        context = server_context(*certificates.node, None)
    assert log == []
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert context.verify_mode is ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.num_tickets == 0


def test_context_has_aead_suites_only(certificates: Certificates) -> None:
    context = server_context(*certificates.node, None)
    assert context is not None
    suites = context.get_ciphers()
    assert {suite["protocol"] for suite in suites} == {"TLSv1.2", "TLSv1.3"}
    assert all(suite["aead"] for suite in suites)
    assert all(suite["kea"] in ("kx-ecdhe", "kx-any") for suite in suites)


def test_client_authority_requires_a_certificate(certificates: Certificates) -> None:
    context = server_context(*certificates.node, certificates.ca)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_missing_options_are_reported(certificates: Certificates) -> None:
    cert, key = certificates.node
    for arguments, expected in (
        ((cert, None, None), "--tls-cert requires its private key: set --tls-key"),
        ((None, key, None), "--tls-key requires --tls-cert"),
        ((None, None, certificates.ca), "--tls-client-ca requires"),
        ((cert, None, certificates.ca), "--tls-client-ca requires"),
    ):
        with pytest.raises(TlsError, match=expected):
            server_context(*arguments)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_missing_files_are_reported(
    certificates: Certificates, tmp_path: Path, missing: int
) -> None:
    files = [*certificates.node, certificates.ca]
    files[missing] = tmp_path / "missing.pem"
    with pytest.raises(TlsError, match=r"missing\.pem cannot be read: No such file"):
        server_context(*files)


def test_directory_is_reported(certificates: Certificates, tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="cannot be read: Is a directory"):
        server_context(tmp_path, certificates.node[1], None)


def test_key_of_another_certificate_is_reported(certificates: Certificates) -> None:
    with pytest.raises(TlsError, match="does not belong to the certificate"):
        server_context(certificates.node[0], certificates.client[1], None)


def test_files_that_are_not_pem_are_reported(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.node
    noise = tmp_path / "noise.pem"
    for content in (b"", b"hello", bytes(range(256))):
        noise.write_bytes(content)
        for files in ((noise, key), (cert, noise), (key, cert)):
            with pytest.raises(TlsError, match="not a PEM certificate and key"):
                server_context(*files, None)
        with pytest.raises(
            TlsError, match=r"--tls-client-ca: .*noise\.pem contains no PEM certificate"
        ):
            server_context(cert, key, noise)


def test_encrypted_key_is_reported_without_a_question(
    certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = certificates.node
    locked = tmp_path / "locked.key"
    subprocess.run(
        [*("openssl", "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", "pass:secret")],
        check=True,
        capture_output=True,
    )
    with pytest.raises(TlsError, match="cannot ask for a passphrase"):
        server_context(cert, locked, None)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_key_that_others_can_read_is_warned_about(
    certificates: Certificates, tmp_path: Path, mode: int, warned: int
) -> None:
    cert, key = certificates.node
    copy = tmp_path / "copy.key"
    shutil.copy(key, copy)
    copy.chmod(mode)
    with capture_logs() as log:
        assert server_context(cert, copy, None) is not None
    assert [entry["log_level"] for entry in log] == ["warning"] * warned
