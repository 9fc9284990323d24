"""Operations: digests signed and ciphertexts decrypted outside TLS, many at once, by every engine."""

from __future__ import annotations

import gc
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

import engine_shim
from engine_shim import BatchEngine, Engine, LatencyEngine, ManualEngine, Operation, Operations, ThreadEngine
from engine_shim.operations import DIGEST_SIZES
from support.certificates import ML_DSA
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_shim import Key
    from support.certificates import Certificates

ENGINES: dict[str, Callable[[], Engine]] = {
    "threads": lambda: ThreadEngine(2),
    "batch": lambda: BatchEngine(1),
    "batch-by-turns": lambda: BatchEngine(0),
    "latency": lambda: LatencyEngine(0.001),
}
MESSAGE = b"to be signed, or not"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with ENGINES[request.param]() as made:
        yield made


@pytest.fixture
def operations() -> Iterator[Operations]:
    with Operations() as made:
        yield made


def finish(operations: Operations, *engines: Engine) -> list[Operation]:
    """Take until nothing is left."""
    taken: list[Operation] = []
    while len(operations):
        for engine in engines:
            engine.turn()
        assert readable([operations.fileno()], PATIENCE)
        taken += operations.take_finished()
    return taken


def result(operations: Operations, operation: Operation) -> bytes:
    assert finish(operations, *{operation.token}) == [operation]  # type: ignore[arg-type] # its engine
    return operation.result()


def public_half(certificates: Certificates, kind: str) -> Any:
    return serialization.load_pem_private_key(certificates[kind].key.read_bytes(), None).public_key()


def digest_of(name: str) -> bytes:
    """Hash the message as that digest would."""
    if name == "MD5-SHA1":
        return hashlib.md5(MESSAGE, usedforsecurity=False).digest() + hashlib.sha1(MESSAGE).digest()  # noqa: S324
    return hashlib.new(name, MESSAGE).digest()


def prehashed(name: str) -> utils.Prehashed:
    return utils.Prehashed(getattr(hashes, name)())


SHA = [name for name in DIGEST_SIZES if name != "MD5-SHA1"]


@pytest.mark.parametrize("name", SHA)
@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072"])
def test_rsa(operations: Operations, engine: Engine, certificates: Certificates, kind: str, name: str) -> None:
    key, public, digest = engine.load_key(certificates[kind].key), public_half(certificates, kind), digest_of(name)
    signed = result(operations, operations.submit_signature(key, name, digest, token=engine))
    public.verify(signed, digest, padding.PKCS1v15(), prehashed(name))
    assert signed == key.sign(MESSAGE, digest=name)
    for salt in (None, 0, 17):
        operation = operations.submit_signature(key, name, digest, padding="pss", salt_length=salt, token=engine)
        length = DIGEST_SIZES[name] if salt is None else salt
        scheme = padding.PSS(padding.MGF1(getattr(hashes, name)()), length)
        public.verify(result(operations, operation), digest, scheme, prehashed(name))


def test_rsa_signs_md5_sha1_without_digest_info(
    operations: Operations, engine: Engine, certificates: Certificates
) -> None:
    key, public = engine.load_key(certificates["rsa2048"].key), public_half(certificates, "rsa2048")
    digest = digest_of("MD5-SHA1")
    signed = result(operations, operations.submit_signature(key, "MD5-SHA1", digest, padding="pkcs1", token=engine))
    numbers = public.public_numbers()
    opened = pow(int.from_bytes(signed, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    assert opened == b"\0\1" + b"\xff" * (256 - 3 - 36) + b"\0" + digest


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
@pytest.mark.parametrize("name", SHA)
def test_ecdsa(operations: Operations, engine: Engine, certificates: Certificates, kind: str, name: str) -> None:
    key, digest = engine.load_key(certificates[kind].key), digest_of(name)
    signed = result(operations, operations.submit_signature(key, name, digest, token=engine))
    public_half(certificates, kind).verify(signed, digest, ec.ECDSA(prehashed(name)))


@pytest.mark.parametrize("kind", ["p256", "p384"])
def test_ecdsa_of_md5_sha1_is_of_its_leftmost_bits(
    operations: Operations, engine: Engine, certificates: Certificates, kind: str
) -> None:
    """FIPS 186-5, 6.4.1: what is longer than the order is cut, and what is shorter is taken as it is."""
    key, digest = engine.load_key(certificates[kind].key), digest_of("MD5-SHA1")
    signed = result(operations, operations.submit_signature(key, "MD5-SHA1", digest, token=engine))
    public = public_half(certificates, kind)
    if kind == "p256":
        public.verify(signed, digest[:32], ec.ECDSA(prehashed("SHA256")))
    else:
        public.verify(signed, bytes(48 - 36) + digest, ec.ECDSA(prehashed("SHA384")))


@pytest.mark.parametrize("name", ["SHA256", "SHA384"])
def test_rsa_pss_key(operations: Operations, engine: Engine, certificates: Certificates, name: str) -> None:
    key, public = engine.load_key(certificates["rsa-pss"].key), public_half(certificates, "rsa-pss")
    digest = digest_of(name)
    signed = result(operations, operations.submit_signature(key, name, digest, token=engine))
    scheme = padding.PSS(padding.MGF1(getattr(hashes, name)()), len(digest))
    public.verify(signed, digest, scheme, prehashed(name))
    refused = operations.submit_signature(key, name, digest, padding="pkcs1", token=engine)
    with pytest.raises(engine_shim.OperationFailedError):
        result(operations, refused)


@pytest.mark.parametrize("kind", ["ed25519", "ed448", *ML_DSA])
@pytest.mark.parametrize("message", [b"", MESSAGE, bytes(100_000)], ids=["empty", "short", "long"])
def test_messages(
    operations: Operations, engine: Engine, certificates: Certificates, kind: str, message: bytes
) -> None:
    key = engine.load_key(certificates[kind].key)
    signed = result(operations, operations.submit_message(key, message, token=engine))
    public_half(certificates, kind).verify(signed, message)


def test_raw_decryption(operations: Operations, engine: Engine, certificates: Certificates) -> None:
    key, numbers = engine.load_key(certificates["rsa2048"].key), public_half(certificates, "rsa2048").public_numbers()
    for plain in (0, 1, 2, numbers.n - 1, int.from_bytes(digest_of("SHA512") * 3, "big")):
        ciphertext = pow(plain, numbers.e, numbers.n).to_bytes(256, "big")
        operation = operations.submit_raw_decryption(key, ciphertext, token=engine)
        assert result(operations, operation) == plain.to_bytes(256, "big")
    beyond = operations.submit_raw_decryption(key, numbers.n.to_bytes(256, "big"), token=engine)
    with pytest.raises(engine_shim.OperationFailedError, match="private-key operation"):
        result(operations, beyond)


def refuse(call: Callable[..., Operation], *arguments: object, match: str, **options: object) -> None:
    with pytest.raises(engine_shim.KeyUseError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_what_keys_cannot_do(operations: Operations, manual: ManualEngine, certificates: Certificates) -> None:
    rsa, p256, ed25519, pss = (
        manual.load_key(certificates[kind].key) for kind in ("rsa2048", "p256", "ed25519", "rsa-pss")
    )
    sign, sha256 = operations.submit_signature, digest_of("SHA256")
    for short in (b"", sha256[1:], sha256 + b"x"):
        refuse(sign, rsa, "SHA256", short, match=f"has {len(short)} bytes, SHA256 has 32")
    refuse(sign, rsa, "MD5", bytes(16), match="digest is 'MD5', it must be one of MD5-SHA1, SHA1")
    refuse(sign, rsa, "SHA256", sha256, padding="oaep", match="padding is 'oaep'")
    refuse(sign, rsa, "SHA256", sha256, salt_length=3, match="has no salt")
    refuse(sign, rsa, "SHA256", sha256, padding="pss", salt_length=-1, match="between 0 and")
    refuse(sign, rsa, "MD5-SHA1", bytes(36), padding="pss", match="pkcs1 only")
    refuse(sign, pss, "MD5-SHA1", bytes(36), match="pkcs1 only")
    refuse(sign, p256, "SHA256", sha256, padding="pkcs1", match="no padding")
    refuse(sign, p256, "SHA256", sha256, salt_length=32, match="no padding")
    refuse(sign, ed25519, "SHA512", digest_of("SHA512"), match="use submit_message")
    refuse(operations.submit_message, rsa, MESSAGE, match="use submit_signature")
    refuse(operations.submit_message, p256, MESSAGE, match="use submit_signature")
    refuse(operations.submit_raw_decryption, p256, bytes(64), match="only RSA keys do")
    refuse(operations.submit_raw_decryption, pss, bytes(256), match="only RSA keys do")
    for size in (0, 255, 257):
        refuse(operations.submit_raw_decryption, rsa, bytes(size), match=f"has {size} bytes, the key's modulus 256")
    assert (len(operations), manual.pending) == (0, 0)


def test_salt_without_room(operations: Operations, engine: Engine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    operation = operations.submit_signature(
        key, "SHA256", digest_of("SHA256"), padding="pss", salt_length=223, token=engine
    )
    with pytest.raises(engine_shim.OperationFailedError):
        result(operations, operation)


class Foreign:
    """A key of an engine that is none of the shim's."""

    type = "RSA"
    is_public = False

    class engine:  # noqa: N801 - as Key has it
        name = "dasync"


def test_key_of_a_third_party(operations: Operations) -> None:
    foreign: Any = Foreign()
    refuse(operations.submit_signature, foreign, "SHA256", bytes(32), match="in engine dasync, a third party's")


def test_key_of_a_signer(operations: Operations, certificates: Certificates) -> None:
    with engine_shim.SignerEngine() as engine:
        key = engine.load_key(certificates["rsa2048"].cert)
        refuse(operations.submit_signature, key, "SHA256", bytes(32), match="ask its signer itself")
        assert engine.take() is None


# --- Finishing, cancelling, closing ---


@pytest.fixture
def key(manual: ManualEngine, certificates: Certificates) -> Key:
    return manual.load_key(certificates["p256"].key)


def submit(operations: Operations, key: Key, token: object = None) -> Operation:
    return operations.submit_signature(key, "SHA256", digest_of("SHA256"), token=token)


def test_order_of_finishing(operations: Operations, manual: ManualEngine, key: Key) -> None:
    one, two, three = (submit(operations, key, name) for name in ("one", "two", "three"))
    assert not readable([operations.fileno()])
    with pytest.raises(engine_shim.OperationNotFinishedError, match="fileno"):
        one.result()
    manual.perform(2)
    manual.perform(0)
    assert readable([operations.fileno()])
    assert operations.take_finished() == [three, one]
    assert not readable([operations.fileno()])
    assert operations.take_finished() == []
    assert len(operations) == 1
    manual.fail()
    assert [operation.token for operation in operations.take_finished()] == ["two"]
    with pytest.raises(engine_shim.OperationFailedError, match="told to fail"):
        two.result()
    assert one.result() == one.result() != three.result()
    assert repr(one) == "<Operation 1>"


def test_cancelling(operations: Operations, manual: ManualEngine, key: Key) -> None:
    queued, begun, finished, taken = (submit(operations, key) for _ in range(4))
    manual.perform(3)
    assert operations.take_finished() == [taken]
    manual.begin(1)
    manual.perform(1)
    for operation in (queued, begun, finished):
        operation.cancel()
        operation.cancel()
        with pytest.raises(engine_shim.OperationCancelledError, match="submit another"):
            operation.result()
    assert (manual.pending, manual.begun, len(operations)) == (0, 0, 0)
    assert operations.take_finished() == []
    taken.cancel()
    assert taken.result()


def test_closing_cancels_all(manual: ManualEngine, key: Key) -> None:
    with Operations() as operations:
        pending = [submit(operations, key) for _ in range(3)]
        manual.perform(1)
    assert manual.pending == 0
    operations.close()
    for operation in pending:
        with pytest.raises(engine_shim.OperationCancelledError):
            operation.result()
    with pytest.raises(engine_shim.EngineClosedError, match="make others"):
        submit(operations, key)
    with pytest.raises(engine_shim.EngineClosedError):
        operations.fileno()
    assert operations.take_finished() == []


def test_closing_the_engine_finishes_all(operations: Operations, certificates: Certificates) -> None:
    with BatchEngine(0, queue_size=8) as engine:
        key = engine.load_key(certificates["p256"].key)
        pending = [submit(operations, key) for _ in range(20)]  # beyond the queue's size: they wait for room
    assert operations.take_finished() == pending
    for operation in pending:
        with pytest.raises(engine_shim.EngineClosedError):
            operation.result()
    with pytest.raises(engine_shim.EngineClosedError, match="submitting an operation"):
        submit(operations, key)
    assert len(operations) == 0


def test_more_than_are_taken_at_once(operations: Operations, certificates: Certificates) -> None:
    with ThreadEngine(2) as engine:
        key = engine.load_key(certificates["p256"].key)
        pending = {submit(operations, key) for _ in range(700)}
        assert set(finish(operations)) == pending
    assert operations.take_finished() == []  # the last signal may have been given just now
    assert not readable([operations.fileno()])


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
@pytest.mark.parametrize("threads", [0, 1])
def test_batches(operations: Operations, certificates: Certificates, kind: str, threads: int) -> None:
    with BatchEngine(threads) as engine:
        if not engine.lanes:
            pytest.skip(engine.description)
        key = engine.load_key(certificates[kind].key)
        pending = [submit(operations, key) for _ in range(64)]
        assert len(finish(operations, engine)) == 64
        statistics = engine.statistics()
        assert (statistics.performed, statistics.recomputed) == (64, 0)
        assert statistics.batched >= 48
    public, sha256 = public_half(certificates, kind), digest_of("SHA256")
    scheme = (ec.ECDSA(prehashed("SHA256")),) if kind == "p256" else (padding.PKCS1v15(), prehashed("SHA256"))
    for operation in pending:
        public.verify(operation.result(), sha256, *scheme)


def test_freed_without_closing(manual: ManualEngine, key: Key) -> None:
    gc.collect()
    before = engine_shim.counters().ops_alive
    operations = Operations()
    for _ in range(10):
        submit(operations, key)
    manual.perform()
    manual.begin()
    assert engine_shim.counters().ops_alive == before + 10
    del operations
    gc.collect()
    assert (engine_shim.counters().ops_alive, manual.pending, manual.begun) == (before, 0, 0)


# --- Whose they are ---


def outcome(call: Callable[[], object]) -> type[Exception] | None:
    try:
        call()
    except engine_shim.ShimError as error:
        return type(error)
    return None


def all_calls(operations: Operations, operation: Operation, key: Key) -> list[Callable[[], object]]:
    return [
        operations.take_finished,
        operations.fileno,
        operations.close,
        operation.cancel,
        lambda: submit(operations, key),
    ]


def test_another_thread(operations: Operations, key: Key) -> None:
    calls = all_calls(operations, submit(operations, key), key)
    with ThreadPoolExecutor(1) as other:
        assert list(other.map(outcome, calls)) == [engine_shim.WrongThreadError] * len(calls)
    assert len(operations) == 1


def test_in_a_forked_child(certificates: Certificates) -> None:
    with ThreadEngine(1) as engine, Operations() as operations:
        key = engine.load_key(certificates["p256"].key)
        pending = [submit(operations, key) for _ in range(20)]
        child = os.fork()
        if child == 0:
            os._exit(count_refusals(operations, pending[-1], key))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        assert set(finish(operations)) == set(pending)


def count_refusals(operations: Operations, operation: Operation, key: Key) -> int:
    """Count them, in the child; then make Operations of its own."""
    outcomes = [outcome(call) for call in all_calls(operations, operation, key)]
    with Operations() as own:
        submit(own, key)
        return outcomes.count(engine_shim.ForkedError) if finish(own)[0].result() else 0
