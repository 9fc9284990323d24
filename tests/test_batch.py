"""Batches through the engine, with the OpenSSL of this environment: what they sign, OpenSSL signs or verifies.

tests/c/test_batch.c has the sizes, the paddings that TLS does not use, and the odd keys.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from engine_shim import BatchEngine, Job, JobStatus
from engine_shim.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_shim import Key

pytestmark = pytest.mark.skipif(not BatchEngine(0).lanes, reason="this CPU or this build has no batches")

DER = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
    "SHA224": hashes.SHA224(),
    "SHA1": hashes.SHA1(),  # noqa: S303 - TLS 1.2 signs with it, where both ends still want that
}


class Case(NamedTuple):
    key: PrivateKey
    digest: str
    padding: str | None
    data: bytes


def smaller_prime_first(key: rsa.RSAPrivateKey) -> rsa.RSAPrivateKey:
    """Give the same key as Go writes some: OpenSSL's own have the larger prime first."""
    n = key.private_numbers()
    p, q = sorted((n.p, n.q))
    dmp1, dmq1 = rsa.rsa_crt_dmp1(n.d, p), rsa.rsa_crt_dmq1(n.d, q)
    numbers = rsa.RSAPrivateNumbers(p, q, n.d, dmp1, dmq1, rsa.rsa_crt_iqmp(p, q), n.public_numbers)
    return numbers.private_key()


def rsa_keys(bits: int) -> list[PrivateKey]:
    key = rsa.generate_private_key(65537, bits)
    return [key, smaller_prime_first(key)]


def p256_keys() -> list[PrivateKey]:
    return [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]


KINDS: dict[str, Callable[[], list[PrivateKey]]] = {
    "rsa2048": lambda: [*rsa_keys(2048), rsa.generate_private_key(65537, 2048)],
    "rsa3072": lambda: rsa_keys(3072),
    "rsa4096": lambda: rsa_keys(4096),
    "p256": p256_keys,
}


def check(case: Case, signature: bytes) -> None:
    algorithm = DIGESTS[case.digest]
    if isinstance(case.key, ec.EllipticCurvePrivateKey):
        case.key.public_key().verify(signature, case.data, ec.ECDSA(algorithm))
    elif case.padding == "pss":
        scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        case.key.public_key().verify(signature, case.data, scheme, algorithm)
    else:
        assert signature == case.key.sign(case.data, padding.PKCS1v15(), algorithm)


class Keys:
    """Keys of one kind, in an engine and as they are."""

    def __init__(self, kind: str, engine: BatchEngine) -> None:
        self.engine = engine
        self.keys: list[tuple[PrivateKey, Key]] = [
            (key, engine.load_key(key.private_bytes(*DER))) for key in KINDS[kind]()
        ]
        self.paddings = [None] if kind == "p256" else ["pss", "pkcs1"]

    def random_batch(self, source: random.Random) -> None:
        """Sign eight random messages in one turn, and have OpenSSL's word on each."""
        asked: list[tuple[Case, Job]] = []
        for _ in range(8):
            plain, loaded = source.choice(self.keys)
            case = Case(plain, source.choice([*DIGESTS]), source.choice(self.paddings), source.randbytes(130))
            job = Job(loaded.sign, case.data, digest=case.digest, padding=case.padding)
            assert job.start() is JobStatus.PAUSED
            asked.append((case, job))
        while self.engine.turn():
            pass
        for case, job in asked:
            assert job.start() is JobStatus.FINISHED
            check(case, job.result())
            job.close()

    @property
    def pays(self) -> bool:
        costs = self.keys[0][1].batch_costs
        assert costs is not None
        return costs.pays_from is not None


@pytest.fixture
def engine() -> Iterator[BatchEngine]:
    with BatchEngine(threads=0) as engine:
        yield engine


@pytest.mark.parametrize("ops", [64, pytest.param(100_000, marks=[pytest.mark.batch, pytest.mark.timeout(7200)])])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_signs_what_openssl_signs(kind: str, ops: int, engine: BatchEngine) -> None:
    keys = Keys(kind, engine)
    source = random.Random(kind)
    for _ in range(ops // 8):
        keys.random_batch(source)
    numbers = engine.statistics()
    assert numbers.batched == (ops if keys.pays else 0)
    assert numbers.recomputed == 0


def test_a_fault_is_recomputed_and_counted(engine: BatchEngine) -> None:
    keys = Keys("rsa2048", engine)
    assert keys.pays
    source = random.Random("fault")
    for lanes, wrong in ((0b1, 1), (0b10100100, 3), (0xFF, 8), (0, 0)):
        before = engine.statistics().recomputed
        lib.batch_inject_fault(lanes)
        keys.random_batch(source)
        assert engine.statistics().recomputed - before == wrong


def test_the_smaller_prime_may_stand_first(engine: BatchEngine) -> None:
    key = smaller_prime_first(rsa.generate_private_key(65537, 2048))
    numbers = key.private_numbers()
    assert numbers.p < numbers.q
    assert engine.load_key(key.private_bytes(*DER)).batch_costs is not None
