"""The certificate for localhost, and certificates in general, judged by Python's own ssl module."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tlsserver import local_certificate as lc
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def handshake(certificate: Path, key: Path, name: str) -> str | None:
    """Connect in memory, trusting nothing but the certificate itself; return the TLS version."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.create_default_context(cafile=str(certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=name)
    server = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return server.version()


@pytest.mark.parametrize("name", lc.LOCAL_NAMES)
def test_a_client_that_trusts_it_can_connect(tmp_path: Path, name: str) -> None:
    made = lc.local_certificate(tmp_path)
    assert made.made
    assert handshake(made.certificate, made.key, name) == "TLSv1.3"


def test_it_is_kept(tmp_path: Path) -> None:
    first = lc.local_certificate(tmp_path / "a" / "b")
    before = first.certificate.read_bytes(), first.key.read_bytes()
    again = lc.local_certificate(tmp_path / "a" / "b")
    assert not again.made
    assert (again.certificate.read_bytes(), again.key.read_bytes()) == before
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["localhost.crt", "localhost.key"]


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    made = lc.local_certificate(tmp_path / "new")
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def _encrypt(path: Path) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))


def _expire(folder: Path, days: int) -> None:
    generated = lc.generate(lc.LOCAL_NAMES, lifetime=timedelta(days=days))
    (folder / "localhost.crt").write_bytes(generated.certificate)
    lc.write_private(folder / "localhost.key", generated.key)


SPOILED: dict[str, Callable[[Path], object]] = {
    "expires soon": lambda folder: _expire(folder, 6),
    "no certificate": lambda folder: (folder / "localhost.crt").unlink(),
    "no key": lambda folder: (folder / "localhost.key").unlink(),
    "garbage": lambda folder: (folder / "localhost.crt").write_bytes(b"garbage"),
    "empty key": lambda folder: (folder / "localhost.key").write_bytes(b""),
    "another key": lambda folder: (folder / "localhost.key").write_bytes(lc.generate(["x"]).key),
    "another kind of key": lambda folder: (folder / "localhost.key").write_bytes(lc.generate(["x"], "ed25519").key),
    "encrypted key": lambda folder: _encrypt(folder / "localhost.key"),
    "key that others can read": lambda folder: (folder / "localhost.key").chmod(0o640),
}


@pytest.mark.parametrize("how", SPOILED)
def test_it_is_made_anew_when_it_cannot_be_used(tmp_path: Path, how: str) -> None:
    lc.local_certificate(tmp_path)
    SPOILED[how](tmp_path)
    made = lc.local_certificate(tmp_path)
    assert made.made
    assert handshake(made.certificate, made.key, "localhost")
    assert not lc.local_certificate(tmp_path).made


def test_it_is_kept_while_it_is_valid_for_more_than_a_week(tmp_path: Path) -> None:
    _expire(tmp_path, 8)
    assert not lc.local_certificate(tmp_path).made


def test_processes_that_start_together_share_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: lc.local_certificate(tmp_path).made, range(16)))
    assert made.count(True) == 1


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="XDG_STATE_HOME") as caught:
        lc.local_certificate(tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("/state", "/state/tlsserver"),
        ("", "{home}/.local/state/tlsserver"),
        ("relative", "{home}/.local/state/tlsserver"),
    ],
)
def test_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, expected: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(lc.state_folder()) == expected.format(home=tmp_path)


def test_a_file_that_cannot_be_completed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        lc.write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Certificates in general.


@pytest.mark.parametrize("key_type", lc.KEY_TYPES)
def test_every_kind_of_key_makes_a_connection(tmp_path: Path, key_type: str) -> None:
    generated = lc.generate(["server.example", "*.wild.example", "192.0.2.1", "[2001:db8::1]"], key_type)
    certificate, key = tmp_path / "c", tmp_path / "k"
    certificate.write_bytes(generated.certificate)
    key.write_bytes(generated.key)
    for name in ("server.example", "a.wild.example", "192.0.2.1", "2001:db8::1"):
        assert handshake(certificate, key, name) == "TLSv1.3"


def test_lifetime_and_fingerprint() -> None:
    pem = lc.generate(["x" * 60 + "." + "y" * 60 + ".example"], lifetime=timedelta(days=30)).certificate
    certificate = x509.load_pem_x509_certificate(pem)
    left = lc.not_after(certificate) - datetime.now(timezone.utc)
    assert timedelta(days=29, hours=23) < left < timedelta(days=30)
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert lc.fingerprint(pem).replace(":", "").lower() == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("name", ["", "a b", "b\u00fccher.example", "a..b", "*.", "http://x", "*"])
def test_names_that_cannot_stand_in_a_certificate(name: str) -> None:
    with pytest.raises(ConfigurationError, match="neither a host name nor an IP address"):
        lc.generate([name])


def test_unknown_kind_of_key_and_endless_lifetime() -> None:
    with pytest.raises(ConfigurationError, match="choose one of rsa:2048"):
        lc.generate(["x"], "dsa")
    with pytest.raises(ConfigurationError, match="give fewer"):
        lc.generate(["x"], lifetime=timedelta(days=10_000_000))
