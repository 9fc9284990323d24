"""Certificates, keys and engines of `tlsserver.asyncio.SSLContext`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from engine_shim import LatencyEngine, ThreadEngine
from support.asyncio_contexts import CLIENT, client_of, der, server_of
from support.ends import shaken, works
from tlsserver import Certificate, ClientContext, ConfigurationError
from tlsserver.asyncio import identities
from tlsserver.asyncio.context import SSLContext
from tlsserver.asyncio.identities import Engines

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)
client = pytest.fixture(client_of)


# Certificates.


@pytest.mark.parametrize("offload", ["auto", "threads", "batch", "off"])
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519"])
def test_offload(certificates: Certificates, offload: str, kind: str) -> None:
    identity = certificates[kind]
    context, client = SSLContext(offload=offload, offload_threads=1), SSLContext(CLIENT)
    context.load_cert_chain(identity.cert, identity.key)
    client.load_verify_locations(identity.ca)
    assert works(context, client)
    if offload != "auto":
        assert context.server_context().offloaded is (offload != "off")
    context.close()


@pytest.mark.parametrize(("suits", "given"), [(0, None), (1, None), (1, 0), (0, 1)])
def test_threads_of_batches(
    identity: Identity, client: SSLContext, monkeypatch: pytest.MonkeyPatch, suits: int, given: int | None
) -> None:
    monkeypatch.setattr(identities, "batch_threads", lambda _source, _password: suits)
    context = SSLContext(offload="batch", offload_threads=given)
    context.load_cert_chain(identity.cert, identity.key)
    threads = suits if given is None else given
    assert [engine.needs_turns for engine in context.server_context().engines] == [threads == 0]
    assert works(context, client)
    context.close()


def test_no_such_offload() -> None:
    with pytest.raises(ConfigurationError, match=r"offload 'gpu' is unknown: choose from auto, threads, batch, off"):
        SSLContext(offload="gpu")


def test_an_engine_of_ones_own(identity: Identity, client: SSLContext) -> None:
    with LatencyEngine(0.001) as engine:
        context = SSLContext(engine=engine)
        context.load_cert_chain(identity.cert, identity.key)
        with shaken(context, client) as (near, far):
            assert far.done
            assert near.parks
        assert engine.statistics().performed == 1
        context.close()
        assert not engine.closed


def test_a_key_in_an_engine(identity: Identity, client: SSLContext) -> None:
    with ThreadEngine(1) as engine:
        context = SSLContext(offload="off")
        context.load_cert_chain(identity.cert, engine.load_key(identity.key))
        assert context.server_context().engines == (engine,)
        assert works(context, client)
        assert engine.statistics().performed == 1
        del context


def test_both_kinds_of_keys(certificates: Certificates) -> None:
    """As in OpenSSL: one of each kind, and another one of a kind takes its place."""
    rsa, ec, other = certificates["rsa2048"], certificates["p256"], certificates["p384"]
    context = SSLContext()
    for identity in (rsa, ec):
        context.load_cert_chain(identity.cert, identity.key)
    assert served(context, ec, "ECDSA+SHA256") == der(ec)
    assert served(context, ec, "RSA-PSS+SHA256") == der(rsa)
    context.load_cert_chain(other.cert, other.key)
    assert served(context, ec, "ECDSA+SHA384") == der(other)
    assert served(context, ec, "RSA-PSS+SHA256") == der(rsa)


def served(context: SSLContext, identity: Identity, algorithms: str) -> bytes:
    client = ClientContext(ca_certs=identity.ca, signature_algorithms=algorithms)
    with shaken(context, client) as (near, far):
        assert far.done, (near.error, far.error)
        return bytes(far.tls.peer_chain()[0])


def test_more_names_beside_both_kinds(certificates: Certificates) -> None:
    rsa, ec = certificates["rsa2048"], certificates["p256"]
    named = certificates.for_names("more", "p256", "more.example")
    context = SSLContext(certificates=[Certificate(named.cert, named.key)])
    for identity in (rsa, ec):
        context.load_cert_chain(identity.cert, identity.key)
    client = ClientContext(ca_certs=ec.ca)
    for name, expected in (("localhost", ec), ("more.example", named)):
        with shaken(context, client, name) as (near, far):
            assert far.done, (near.error, far.error)
            assert far.tls.peer_chain()[0] == der(expected)


@pytest.mark.parametrize("password", ["secret", b"secret", bytearray(b"secret"), lambda: "secret", lambda: b"secret"])
def test_passwords(identity: Identity, client: SSLContext, password: Any) -> None:
    context = SSLContext()
    context.load_cert_chain(identity.cert, identity.encrypted_key(b"secret"), password)
    assert works(context, client)


def test_nobody_is_asked_for_a_password_without_need(identity: Identity) -> None:
    SSLContext().load_cert_chain(identity.cert, identity.key, lambda: pytest.fail("asked"))


@pytest.mark.parametrize(
    ("password", "raised"),
    [
        (None, ssl.SSLError),
        ("wrong", ssl.SSLError),
        (7, TypeError),
        (lambda: 7, TypeError),
        (lambda: 1 / 0, ZeroDivisionError),
        (list[str]().pop, IndexError),
        ("x" * 1025, ValueError),
        (lambda: "x" * 1025, ValueError),
    ],
    ids=["none", "wrong", "no text", "asked for no text", "asker fails", "asker finds none", "long", "asked for long"],
)
def test_wrong_passwords(identity: Identity, password: Any, raised: type[Exception]) -> None:
    with pytest.raises(raised) as caught:
        SSLContext().load_cert_chain(identity.cert, identity.encrypted_key(b"secret"), password)
    assert "secret" not in str(caught.value)


def test_certificates_that_cannot_be_used(identity: Identity, certificates: Certificates, tmp_path: Path) -> None:
    context = SSLContext()
    closed = tmp_path / "closed.pem"
    closed.touch()
    with pytest.raises(ssl.SSLError, match="does not belong") as caught:
        context.load_cert_chain(identity.cert, certificates["p384"].key)
    assert caught.value.reason == "KEY_VALUES_MISMATCH"
    with pytest.raises(ssl.SSLError, match="no certificate"):
        context.load_cert_chain(identity.key, identity.key)
    with pytest.raises(ssl.SSLError, match="no private key"):
        context.load_cert_chain(identity.cert)
    with pytest.raises(ssl.SSLError, match=r"no certificate|no private key"):
        context.load_cert_chain(closed)
    with pytest.raises(FileNotFoundError):
        context.load_cert_chain(identity.cert, "nowhere.key")
    with pytest.raises(IsADirectoryError):
        context.load_cert_chain(tmp_path, identity.key)
    with pytest.raises(ssl.SSLError, match=r"pkcs11:object=web is no file: load it with an engine"):
        context.load_cert_chain(identity.cert, "pkcs11:object=web")
    with pytest.raises(ssl.SSLError, match="has no certificate"):
        context.server_context()


def test_a_key_that_is_too_weak_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - for this one

    from support import chains  # noqa: PLC0415 - as above

    weak = chains.issue("weak", key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - that is what it is about
    cert, key = weak.write(tmp_path)
    context = SSLContext()
    with pytest.raises(ssl.SSLError, match="ee key too small"):
        context.load_cert_chain(cert, key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    assert context.security_level == 0
    context.load_cert_chain(cert, key)
    context.server_context()


def test_a_client_knows_all_its_engines(certificates: Certificates) -> None:
    """The loop gives each of them its turns."""
    with ThreadEngine(1) as one, ThreadEngine(1) as two:
        client = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for engine, kind in ((one, "p256"), (two, "rsa2048")):
            client.load_cert_chain(certificates[kind].cert, engine.load_key(certificates[kind].key))
        assert client.client_context().engines == (one, two)
        assert client.client_context().engine is one
        del client


def test_an_engine_may_be_made_while_others_are_closed(certificates: Certificates) -> None:
    """A certificate is renewed on another thread than the one that closes."""
    engines = Engines(None, "threads", 1)
    closed = []

    class Closing:
        def close(self) -> None:
            engines.load(certificates["p256"].key, None)
            closed.append(self)

    engines._made["batch", 1] = Closing()  # type: ignore[assignment] # as far as it is needed
    engines.close()
    assert len(closed) == 1
    engines._made.popitem()[1].close()


@pytest.mark.skipif(not hasattr(x509.Certificate, "public_key_algorithm_oid"), reason="cryptography is older than 43")
def test_a_certificate_of_rsa_pss_takes_no_other_ones_place(certificates: Certificates, client: SSLContext) -> None:
    rsa, pss = certificates["rsa2048"], certificates["rsa-pss"]
    context = SSLContext()
    context.load_cert_chain(rsa.cert, rsa.key)
    context.load_cert_chain(pss.cert, pss.key)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_server_sigalgs("RSA+SHA256")
    with shaken(context, client) as (_, far):
        assert far.done
        assert far.tls.peer_chain()[0] == der(rsa)
