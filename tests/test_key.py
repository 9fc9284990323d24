"""Keys: reading them, refusing what is not one, wrapping them, and what nobody else in the process may notice."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from OpenSSL import SSL

import engine_shim
from engine_shim import Key, ManualEngine, Status, ThreadEngine
from support.certificates import ML_DSA
from support.pair import STATIC_RSA, Pair, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

PASSWORD = b"correct horse"


@pytest.fixture
def engine() -> Iterator[ThreadEngine]:
    with ThreadEngine(1) as engine:
        yield engine


@pytest.mark.parametrize(
    ("kind", "name", "bits"),
    [
        ("rsa2048", "RSA", 2048),
        ("rsa-pss", "RSA-PSS", 2048),
        ("p256", "EC", 256),
        ("p521", "EC", 521),
        ("ed25519", "ED25519", 256),
        ("ed448", "ED448", 456),
    ],
)
def test_kinds(engine: ThreadEngine, certificates: Certificates, kind: str, name: str, bits: int) -> None:
    key = engine.load_key(certificates[kind].key)
    assert (key.type, key.bits, key.engine) == (name, bits, engine)
    public = serialization.load_pem_private_key(certificates[kind].key.read_bytes(), None).public_key()
    if kind != "rsa-pss":  # cryptography forgets that it is one
        expected = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert key.public_der() == expected


@pytest.mark.skipif(not ML_DSA, reason="this cryptography has no ML-DSA")
@pytest.mark.parametrize("kind", ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_ml_dsa_handshake(engine: ThreadEngine, certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    key = engine.load_key(identity.key)
    assert key.type == kind.upper()
    with Pair(server_context(identity, key), client_context(identity, "1.3")) as pair:
        assert pair.finish() is Status.DONE
        assert pair.parks == 1
        assert pair.echo() == b"ping"


def test_der_and_bytes(engine: ThreadEngine, certificates: Certificates) -> None:
    pem = certificates["p256"].key.read_bytes()
    der = serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert engine.load_key(pem).public_der() == engine.load_key(der).public_der()


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.decode()])
def test_encrypted_key(engine: ThreadEngine, certificates: Certificates, password: str | bytes) -> None:
    path = certificates["p256"].encrypted_key(PASSWORD)
    assert engine.load_key(path, password).public_der() == engine.load_key(certificates["p256"].key).public_der()


@pytest.mark.parametrize("password", [None, b"", b"wrong", b"x" * 5000])
def test_encrypted_key_without_its_password(
    engine: ThreadEngine, certificates: Certificates, password: bytes | None
) -> None:
    path = certificates["p256"].encrypted_key(PASSWORD)
    with pytest.raises(engine_shim.KeyPasswordError, match="password is missing or wrong") as caught:
        engine.load_key(path, password)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"garbage", b"0", b"\x30\x82", b"\x30" * 100, b"-----BEGIN PRIVATE KEY-----\n"])
def test_no_key(engine: ThreadEngine, data: bytes) -> None:
    with pytest.raises(engine_shim.KeyLoadError):
        engine.load_key(data)


def test_certificate_instead_of_key(engine: ThreadEngine, certificates: Certificates) -> None:
    with pytest.raises(engine_shim.KeyLoadError, match="no private key"):
        engine.load_key(certificates["p256"].cert)


def test_file_too_long_for_a_key(engine: ThreadEngine) -> None:
    with pytest.raises(engine_shim.KeyLoadError, match="longer than a key can be"):
        engine.load_key(bytes(2 << 20))


def test_missing_file(engine: ThreadEngine) -> None:
    with pytest.raises(FileNotFoundError):
        engine.load_key("/nowhere/key.pem")


def test_key_of_another_certificate(engine: ThreadEngine, certificates: Certificates) -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(certificates["rsa2048"].cert))
    for other in ("p256", "rsa3072"):
        with pytest.raises(engine_shim.KeyMismatchError, match="does not belong"):
            engine.load_key(certificates[other].key).use(context)
        with pytest.raises(engine_shim.KeyMismatchError, match="does not belong"):
            engine_shim.use_plain_key(context, certificates[other].key)


def test_unknown_padding(engine: ThreadEngine, certificates: Certificates) -> None:
    with pytest.raises(ValueError, match="padding is 'oaep'"):
        engine.load_key(certificates["rsa2048"].key).sign(b"", padding="oaep")


def test_keys_are_freed(certificates: Certificates) -> None:
    gc.collect()
    before = engine_shim.counters().keys_alive
    with ThreadEngine(1) as engine:
        keys = [engine.load_key(certificates["p256"].key) for _ in range(10)]
        context = server_context(certificates["p256"], keys[0])
        assert engine_shim.counters().keys_alive == before + 10
        keys.clear()
        gc.collect()
        assert engine_shim.counters().keys_alive == before + 1  # the Context's
        del context
        gc.collect()
        assert engine_shim.counters().keys_alive == before


# --- The keys of a Context that is there already ---


def two_certificates(certificates: Certificates) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    for kind in ("rsa2048", "p256"):
        context.use_certificate_chain_file(str(certificates[kind].cert))
        context.use_privatekey_file(str(certificates[kind].key))
    return context


@pytest.mark.parametrize("ciphers", ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"])
def test_every_slot_of_a_context_is_wrapped(certificates: Certificates, ciphers: str) -> None:
    with ManualEngine() as engine:
        context = two_certificates(certificates)
        assert engine_shim.wrap_context(context, engine) == 2
        assert engine_shim.wrap_context(context, engine) == 0  # they are wrapped already
        with Pair(context, client_context(certificates["p256"], "1.2", ciphers)) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.perform()
            assert pair.finish() is Status.DONE


def test_context_without_a_key() -> None:
    with ManualEngine() as engine:
        assert engine_shim.wrap_context(SSL.Context(SSL.TLS_SERVER_METHOD), engine) == 0


def test_nothing_else_in_the_process_changes(certificates: Certificates) -> None:
    """A key that nobody wrapped never comes near the engine: handshake, client key, signature."""
    with ManualEngine() as engine:
        engine.load_key(certificates["rsa2048"].key)
        with Pair(server_context(certificates["rsa2048"], None), client_context(certificates["rsa2048"])) as pair:
            assert pair.until_parked() is Status.DONE
            assert pair.parks == 0
        private: Any = serialization.load_pem_private_key(certificates["rsa2048"].key.read_bytes(), None)
        private.sign(b"plain", padding.PKCS1v15(), hashes.SHA256())
        assert engine.statistics().submitted == 0


# In a process of its own: what OpenSSL has cached before decides.
ISOLATION = """
import sys
sys.path.insert(0, sys.argv[1])
import engine_shim
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
with engine_shim.ThreadEngine(1) as engine:
    for path in sys.argv[2:]:
        key = engine.load_key(path)
        key.sign(b"x", digest=None if key.type.startswith("ED") else "SHA256")
ec.generate_private_key(ec.SECP256R1()).sign(b"x", ec.ECDSA(hashes.SHA256()))
rsa.generate_private_key(65537, 2048).sign(b"x", padding.PKCS1v15(), hashes.SHA256())
"""


def test_first_use_of_a_wrapped_key_is_nobody_elses_business(certificates: Certificates) -> None:
    """In OpenSSL's default context our key management would be cached as everybody's (docs/decisions/0001)."""
    root = str(Path(__file__).parent.parent)
    keys = [str(certificates[kind].key) for kind in ("p256", "rsa2048", "rsa-pss", "ed25519")]
    subprocess.run([sys.executable, "-c", ISOLATION, root, *keys], check=True, timeout=60)


def test_mutual_tls_with_a_wrapped_client_key(certificates: Certificates) -> None:
    """Client and server keys of every kind in engines: the peers' public keys stay with OpenSSL's own provider."""
    with ThreadEngine(1) as engine:
        for kind in ("rsa2048", "p384", "ed25519"):
            identity = certificates[kind]
            key = engine.load_key(identity.key)
            server = server_context(identity, key)
            server.load_verify_locations(str(identity.ca))
            server.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
            client = client_context(identity)
            client.use_certificate_file(str(identity.cert))
            key.use(client)
            with Pair(server, client) as pair:
                assert pair.finish() is Status.DONE
                assert pair.echo() == b"ping"


# --- RSA decryption: nothing tells good padding from bad (RFC 5246, 7.4.7.1) ---


def encrypt(key: Key, plain: bytes) -> bytes:
    public: Any = serialization.load_der_public_key(key.public_der())
    return bytes(public.encrypt(plain, padding.PKCS1v15()))


def test_premaster_is_decrypted(engine: ThreadEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    secret = b"\x03\x03" + bytes(range(46))
    assert key.decrypt_premaster(encrypt(key, secret)) == secret


@pytest.mark.parametrize("case", ["bad padding", "wrong version", "wrong length"])
def test_bad_premaster_looks_like_a_good_one(engine: ThreadEngine, certificates: Certificates, case: str) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    ciphertext = {
        "bad padding": b"\x01" * 256,
        "wrong version": encrypt(key, b"\x03\x01" + bytes(46)),
        "wrong length": encrypt(key, b"\x03\x03"),
    }[case]
    answers = {key.decrypt_premaster(ciphertext) for _ in range(4)}
    assert {len(answer) for answer in answers} == {48}
    assert bytes(46) not in {answer[2:] for answer in answers}
    assert engine.statistics().failed == 0


def replace_premaster(flight: bytes, ciphertext: bytes) -> bytes:
    """Put another ciphertext into the ClientKeyExchange (handshake type 16) of a TLS 1.2 flight."""
    at = flight.index(b"\x16\x03\x03\x01\x06\x10\x00\x01\x02\x01\x00") + 11
    return flight[:at] + ciphertext + flight[at + 256 :]


def outcome_of(pair: Pair, key: Key, make: str) -> tuple[object, ...]:
    """Run a handshake whose premaster secret is wrong in one way; what both ends get to see of it."""
    pair.step_client()
    assert pair.server.handshake() is Status.WANT_READ
    pair.client.bio_write(pair._far.recv(1 << 16))
    with pytest.raises(SSL.WantReadError):
        pair.client.do_handshake()
    other = encrypt(key, b"\x03\x03" + bytes(46)) if make == "good padding" else b"\x01" * 256
    pair._far.sendall(replace_premaster(pair.client.bio_read(1 << 16), other))
    status = pair.finish()
    alert = pair._far.recv(100)
    return status, [error.text for error in pair.server.errors()], alert


def test_padding_never_shows_in_alert_or_error(engine: ThreadEngine, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    key = engine.load_key(identity.key)
    seen = []
    for make in ("good padding", "bad padding"):
        with Pair(server_context(identity, key, STATIC_RSA), client_context(identity, "1.2", STATIC_RSA)) as pair:
            seen.append(outcome_of(pair, key, make))
    assert seen[0] == seen[1]
    assert seen[0][0] is Status.ERROR
