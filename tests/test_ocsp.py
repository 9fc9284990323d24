"""OCSP responses, read: what they say, and why clients would not believe them."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp as made
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.chains import Issued, issue, refuse, respond
from tlsserver import ocsp

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture(scope="module", params=["ec", "rsa"])
def root(request: pytest.FixtureRequest) -> Issued:
    return issue("root", ca=True, key=rsa.generate_private_key(65537, 2048) if request.param == "rsa" else None)


@pytest.fixture(scope="module")
def leaf(root: Issued) -> Issued:
    return issue("localhost", root)


def complaint(response: bytes, *chain: Issued) -> str | None:
    return ocsp.read(response).complaint([one.certificate for one in chain], NOW)


@pytest.mark.parametrize("status", ["GOOD", "REVOKED", "UNKNOWN"])
def test_what_it_says(root: Issued, leaf: Issued, status: str) -> None:
    found = ocsp.read(respond(leaf, root, status=made.OCSPCertStatus[status]))
    assert (found.status, found.successful) == (status.lower(), True)
    assert found.this_update is not None
    assert found.next_update is not None
    assert found.this_update < NOW < found.next_update
    assert found.complaint([leaf.certificate, root.certificate], NOW) is None


def test_by_a_responder_that_the_issuer_has_named(root: Issued, leaf: Issued) -> None:
    named = issue("responder", root, usage=ExtendedKeyUsageOID.OCSP_SIGNING)
    assert complaint(respond(leaf, root, by=named), leaf, root) is None


def test_by_somebody_else(root: Issued, leaf: Issued) -> None:
    for impostor in (
        issue("responder", root),  # of the same authority, but not named for this
        issue("responder", issue("root", ca=True), usage=ExtendedKeyUsageOID.OCSP_SIGNING),
    ):
        assert complaint(respond(leaf, root, by=impostor), leaf, root) == (
            "its signature is not that of the certificate's issuer"
        )


def test_an_issuer_that_is_not_in_the_chain_tells_nothing(root: Issued, leaf: Issued) -> None:
    assert complaint(respond(leaf, root), leaf) is None


def test_of_another_issuer_of_the_same_serial_number(root: Issued, leaf: Issued) -> None:
    assert complaint(respond(leaf, issue("other", ca=True)), leaf, root) is not None


@pytest.mark.parametrize(
    ("days", "words"),
    [((-8, -1), "it has expired, "), ((1, 2), "it is valid from "), ((-400, None), None)],
)
def test_times(root: Issued, leaf: Issued, days: tuple[float, float | None], words: str | None) -> None:
    said = complaint(respond(leaf, root, days=days), leaf, root)
    assert (said or "").startswith(words or "") is True
    assert (said is None) is (words is None)


def test_about_another_certificate(root: Issued, leaf: Issued) -> None:
    assert complaint(respond(issue("other", root), root), leaf, root) == "it is about another certificate"


def test_a_refusal(leaf: Issued) -> None:
    found = ocsp.read(refuse())
    assert (found.status, found.successful, found.is_over(NOW)) == ("try_later", False, False)
    assert complaint(refuse(), leaf) == "the responder has refused: try_later"


@pytest.mark.parametrize("garbage", [b"", b"0\x03", b"-----BEGIN"])
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ocsp.read(garbage)
