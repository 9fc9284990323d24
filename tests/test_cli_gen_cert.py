"""`tlsserver gen-cert`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tlsserver import cli
from tlsserver.local_certificate import fingerprint, not_after

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_for_this_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gen-cert"]) == 0
    assert names(folder / "cert.pem") == ["localhost", "127.0.0.1", "::1"]
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    shown = capsys.readouterr().out
    assert fingerprint((folder / "cert.pem").read_bytes()) in shown
    assert "key.pem" in shown


def test_for_names_and_addresses(folder: Path) -> None:
    arguments = ["a.example", "*.b.example", "192.0.2.7", "--days=30", "--out-cert=c", "--out-key=k"]
    assert cli.run(["gen-cert", *arguments]) == 0
    assert names(folder / "c") == ["a.example", "*.b.example", "192.0.2.7"]
    left = not_after(x509.load_pem_x509_certificate((folder / "c").read_bytes())) - datetime.now(timezone.utc)
    assert timedelta(days=29) < left <= timedelta(days=30)


KINDS = {
    "rsa:2048": (rsa.RSAPrivateKey, 2048),
    "rsa:3072": (rsa.RSAPrivateKey, 3072),
    "ec:p256": (ec.EllipticCurvePrivateKey, 256),
    "ec:p384": (ec.EllipticCurvePrivateKey, 384),
    "ec:p521": (ec.EllipticCurvePrivateKey, 521),
    "ed25519": (ed25519.Ed25519PrivateKey, None),
    "ed448": (ed448.Ed448PrivateKey, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_keys(folder: Path, kind: str) -> None:
    assert cli.run(["gen-cert", "--key-type", kind]) == 0
    key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    expected, size = KINDS[kind]
    assert isinstance(key, expected)
    assert getattr(key, "key_size", None) == size


@pytest.mark.parametrize("there", ["cert.pem", "key.pem"])
def test_nothing_is_replaced_unasked(folder: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    (folder / there).write_text("mine")
    assert cli.run(["gen-cert"]) == 2
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [there]
    assert (folder / there).read_text() == "mine"
    assert cli.run(["gen-cert", "--force"]) == 0
    assert (folder / there).read_text().startswith("-----BEGIN")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key-type=dsa"], "choose one of rsa:2048"),
        (["b\u00fccher.example"], "xn--"),
        (["--days=0"], "--days"),
        (["--days=99999999"], "give fewer"),
        (["--out-cert=x", "--out-key=x"], "two paths"),
        (["--out-cert=missing/c"], "cannot be written: No such file"),
        (["--out-key=missing/k"], "cannot be written: No such file"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cli.run(["gen-cert", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("tlsserver: error: ")
    assert told.count("\n") == 1
    assert words in told
    assert not any(path.name.startswith(".") for path in folder.iterdir())
