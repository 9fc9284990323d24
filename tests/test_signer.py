"""A signer is told all that it needs; what it answers is verified."""

from __future__ import annotations

import gc
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import engine_shim
from engine_shim import (
    KeyLoadError,
    OperationFailedError,
    SignerEngine,
    Status,
    WrongAnswerError,
)
from support import leaks
from support.asking import asked, ended, make_pair, private_key, raw_decryption, said, sign, taken
from support.pair import STATIC_RSA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

KINDS = ("rsa2048", "rsa4096", "p256", "p384", "p521", "ed25519", "ed448", "rsa-pss")
LONG = 600.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    gc.collect()
    before = engine_shim.counters()
    yield
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == before.ops_alive)
    after = engine_shim.counters()
    assert (after.ops_alive, after.keys_alive) == (before.ops_alive, before.keys_alive)
    assert after.jobs_started - before.jobs_started == after.jobs_finished - before.jobs_finished


@pytest.fixture
def engine() -> Iterator[SignerEngine]:
    with SignerEngine(deadline=LONG) as engine:
        yield engine


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", KINDS)
def test_handshake_with_a_key_that_is_elsewhere(
    engine: SignerEngine, certificates: Certificates, kind: str, version: str
) -> None:
    identity = certificates[kind]
    with make_pair(engine, identity, version) as pair:
        request = asked(engine, pair)
        assert request.operation == "sign"
        assert request.is_open
        request.complete(sign(request, private_key(identity)))
        assert not request.is_open
        assert ended(pair) is Status.DONE
        assert pair.echo(b"signed elsewhere") == b"signed elsewhere"
    assert engine.statistics().performed == 1


@pytest.mark.parametrize(
    ("kind", "version", "scheme"),
    [
        ("rsa2048", "1.3", "rsa_pss_rsae_sha256"),
        ("rsa-pss", "1.3", "rsa_pss_pss_sha256"),
        ("p256", "1.3", "ecdsa_secp256r1_sha256"),
        ("p384", "1.3", "ecdsa_secp384r1_sha384"),
        ("ed25519", "1.2", "ed25519"),
        ("ed448", "1.3", "ed448"),
    ],
)
def test_scheme_is_what_tls_calls_it(
    engine: SignerEngine, certificates: Certificates, kind: str, version: str, scheme: str
) -> None:
    with make_pair(engine, certificates[kind], version) as pair:
        request = asked(engine, pair)
        assert request.scheme == scheme
        assert scheme in repr(request)
        request.fail("seen enough")
        ended(pair)


@pytest.mark.parametrize(
    ("kind", "digest", "scheme"),
    [
        ("rsa2048", "SHA3-256", "rsa_pkcs1_sha3-256"),
        ("p256", "SHA3-256", "ecdsa_sha3-256"),
        ("rsa-pss", "SHA256", "rsa_pss_pss_sha256"),
    ],
)
def test_scheme_that_tls_does_not_have(
    engine: SignerEngine, certificates: Certificates, kind: str, digest: str, scheme: str
) -> None:
    """Outside TLS anything may be asked for, and nobody may have said how an RSA-PSS key pads."""
    key = engine.load_key(certificates[kind].cert)
    with engine_shim.Job(key.sign, b"message", digest=digest) as job:
        job.start()
        request = taken(engine)
        assert request.scheme == scheme
        assert request.digest == hashlib.new(digest.lower(), b"message").digest()
        request.complete(sign(request, private_key(certificates[kind])))
        assert job.start() is engine_shim.JobStatus.FINISHED
        assert job.result()


@pytest.mark.parametrize("case", ["zero", "one", "n - 1", "n", "the most", "longer", "empty"])
def test_numbers_that_are_no_ciphertext_never_reach_a_signer(
    engine: SignerEngine, certificates: Certificates, case: str
) -> None:
    """A client could make it fail with them as often as it likes."""
    public: Any = x509.load_pem_x509_certificate(certificates["rsa2048"].cert.read_bytes()).public_key()
    n = public.public_numbers().n
    numbers = {"zero": 0, "one": 1, "n - 1": n - 1, "n": n, "the most": 2**2048 - 1}
    ciphertext = (
        numbers[case].to_bytes(256, "big") if case in numbers else b"" if case == "empty" else bytes(256) + b"2"
    )
    key = engine.load_key(certificates["rsa2048"].cert)
    with engine_shim.Job(key.decrypt_premaster, ciphertext) as job:
        assert job.start() is engine_shim.JobStatus.FINISHED
        with pytest.raises(OperationFailedError, match="cannot be decrypted with this modulus"):
            job.result()
    assert engine.statistics().submitted == 0


@pytest.mark.parametrize("case", ["two", "n - 2", "without its zeros"])
def test_ciphertext_is_as_long_as_the_modulus(engine: SignerEngine, certificates: Certificates, case: str) -> None:
    public: Any = x509.load_pem_x509_certificate(certificates["rsa2048"].cert.read_bytes()).public_key()
    number = {"two": 2, "n - 2": public.public_numbers().n - 2, "without its zeros": 2**2000}[case]
    key = engine.load_key(certificates["rsa2048"].cert)
    ciphertext = number.to_bytes(251 if case == "without its zeros" else 256, "big")
    with engine_shim.Job(key.decrypt_premaster, ciphertext) as job:
        job.start()
        assert taken(engine).message == number.to_bytes(256, "big")


def test_key_is_named_as_certificates_name_it(engine: SignerEngine, certificates: Certificates) -> None:
    for kind in KINDS:
        certificate = x509.load_pem_x509_certificate(certificates[kind].cert.read_bytes())
        expected = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
        assert engine.load_key(certificates[kind].cert).key_id == expected


@pytest.mark.parametrize("form", ["certificate", "der certificate", "public key", "der public key"])
def test_public_half_in_any_form(engine: SignerEngine, certificates: Certificates, form: str) -> None:
    certificate = x509.load_pem_x509_certificate(certificates["p256"].cert.read_bytes())
    encoding = Encoding.DER if form.startswith("der") else Encoding.PEM
    if form.endswith("certificate"):
        data = certificate.public_bytes(encoding)
    else:
        data = certificate.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    key = engine.load_key(data)
    assert (key.type, key.bits, key.is_public) == ("EC", 256, True)
    assert key.public_der() == certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_private_key_is_refused(engine: SignerEngine, certificates: Certificates) -> None:
    with pytest.raises(KeyLoadError, match="the public half alone: give the certificate"):
        engine.load_key(certificates["p256"].key)
    both = certificates["p256"].cert.read_bytes() + certificates["p256"].key.read_bytes()
    with pytest.raises(KeyLoadError, match="is private"):
        engine.load_key(both)
    with pytest.raises(KeyLoadError, match="neither a certificate nor a public key"):
        engine.load_key(b"rubbish")
    with pytest.raises(KeyLoadError, match="neither"):
        engine.load_key(b"\x30\x82\xff\xff rubbish")


def test_wrong_answer_fails_the_handshake_and_nothing_else(engine: SignerEngine, certificates: Certificates) -> None:
    identity, other = certificates["rsa2048"], certificates["rsa4096"]
    with make_pair(engine, identity) as pair, make_pair(engine, identity) as second:
        request, good = asked(engine, pair), asked(engine, second)
        with pytest.raises(WrongAnswerError, match=f"request {request.id}"):
            request.complete(sign(request, private_key(other)))
        assert ended(pair) is Status.ERROR
        assert "not right for this key" in said(pair)
        good.complete(sign(good, private_key(identity)))
        assert ended(second) is Status.DONE
    assert engine.signer_times().wrong == 1


def test_another_requests_signature_is_wrong(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair, make_pair(engine, identity) as second:
        one, other = asked(engine, pair), asked(engine, second)
        with pytest.raises(WrongAnswerError):
            one.complete(sign(other, private_key(identity)))
        other.complete(sign(other, private_key(identity)))
        assert ended(pair) is Status.ERROR
        assert ended(second) is Status.DONE


@pytest.mark.parametrize("rubbish", [b"", b"\0", b"\xff" * 71, b"\xff" * 10_000])
def test_wrong_answer_that_is_not_final_leaves_the_request_open(
    engine: SignerEngine, certificates: Certificates, rubbish: bytes
) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        with pytest.raises(WrongAnswerError):
            request.complete(rubbish, final=False)
        assert request.is_open
        request.complete(sign(request, private_key(identity)))
        assert ended(pair) is Status.DONE


def test_decryption_is_raw_and_unpadded_here(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    with make_pair(engine, identity, "1.2", STATIC_RSA) as pair:
        request = asked(engine, pair)
        assert (request.operation, request.scheme, request.padding) == ("decrypt", "rsa_decrypt", None)
        assert request.digest is None
        answer = raw_decryption(request, private_key(identity))
        with pytest.raises(WrongAnswerError):
            request.complete(answer[1:], final=False)
        request.complete(answer)
        assert ended(pair) is Status.DONE
        assert pair.echo(b"x") == b"x"


@pytest.mark.parametrize("change", [0, 1, 2, 100, -49, -48, -47])
def test_bad_padding_fails_like_a_bad_secret(engine: SignerEngine, certificates: Certificates, change: int) -> None:
    """Only the client's Finished tells, as RFC 5246, 7.4.7.1 wants it: nothing says what was wrong."""
    identity = certificates["rsa2048"]
    with make_pair(engine, identity, "1.2", STATIC_RSA) as pair:
        request = asked(engine, pair)
        answer = bytearray(raw_decryption(request, private_key(identity)))
        answer[change] = 0 if change in {2, 100} else answer[change] ^ 0x55
        request.complete(bytes(answer))
        assert ended(pair) is Status.ERROR
        assert "bad record mac" in said(pair) or "decryption failed" in said(pair)
