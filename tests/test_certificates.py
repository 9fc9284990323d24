"""Certificates, read for people and for checks."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.chains import issue
from tlsserver import certificates

if TYPE_CHECKING:
    from support.certificates import Certificates

UTC = dt.timezone.utc


def test_what_is_said() -> None:
    now = dt.datetime.now(UTC)
    told = certificates.describe(issue("host", days=(-2, 3.5), names=["host", "::1"]).certificate, now)
    assert (told.subject, told.issuer, told.self_issued, told.days_left) == ("host", "host", True, 3)
    assert told.names == ("host", "::1")
    assert told.valid_until.endswith("+00:00")
    assert len(told.sha256) == 95


def test_names_of_keys(certificates: Certificates) -> None:
    from tlsserver.certificates import key_name, read_chain  # noqa: PLC0415 - the fixture has the module's name

    said = {
        kind: key_name(read_chain(certificates[kind].cert.read_bytes())[0]) for kind in ("rsa2048", "p384", "ed25519")
    }
    assert said == {"rsa2048": "RSA-2048", "p384": "EC secp384r1", "ed25519": "Ed25519"}


def test_chains() -> None:
    first, second = issue("one"), issue("two")
    found = certificates.read_chain(b"words\n" + first.pem + first.key_pem + b"more words" + second.pem)
    assert found == [first.certificate, second.certificate]
    assert certificates.read_chain(b"nothing") == []
    with pytest.raises(ValueError, match=r".+"):
        certificates.read_chain(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (["a.example"], "A.example.", True),
        (["a.example"], "b.example", False),
        (["*.a.example"], "b.a.example", True),
        (["*.a.example"], "c.b.a.example", False),
        (["*.a.example"], "a.example", False),
        (["*.example"], "a.example", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["::1"], "0:0:0:0:0:0:0:1", True),
        ([], "host", False),
    ],
)
def test_whom_it_serves(names: list[str], name: str, expected: bool) -> None:
    assert certificates.serves(issue("host", names=names).certificate, name) is expected


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_signatures(kind: str) -> None:
    keys = {"ec": None, "rsa": rsa.generate_private_key(65537, 2048), "ed25519": ed25519.Ed25519PrivateKey.generate()}
    authority, other = issue("root", key=keys[kind], ca=True), issue("root", ca=True)
    signed = issue("host", authority).certificate
    signature = (signed.tbs_certificate_bytes, signed.signature)
    rest = (signed.signature_algorithm_oid, signed.signature_hash_algorithm)
    assert certificates.is_signed_by(signature, *rest, authority.certificate) is True
    wrong = (signed.tbs_certificate_bytes + b"x", signed.signature)
    assert certificates.is_signed_by(wrong, *rest, authority.certificate) is False
    if kind == "ec":
        assert certificates.is_signed_by(signature, *rest, other.certificate) is False


def test_der_is_no_chain() -> None:
    assert certificates.read_chain(issue("host").certificate.public_bytes(Encoding.DER)) == []
