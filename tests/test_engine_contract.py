"""What every engine must do. A new engine is one row in ENGINES; nothing here knows one engine from another.

An engine's row says how to make it and how to let it answer: engines with threads answer by themselves, the manual
one has to be told.
"""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import engine_shim
from engine_shim import BatchEngine, Engine, LatencyEngine, ManualEngine, SignerEngine, Status, ThreadEngine
from support import leaks
from support.local_signer import FunctionSigner, LocalSigner
from support.pair import STATIC_RSA, Pair, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates, Identity


def perform_all(engine: Engine) -> None:
    """Let the manual engine answer."""
    assert isinstance(engine, ManualEngine)
    while engine.pending:
        engine.perform()


def nothing(_: Engine) -> None:
    """The engine answers by itself."""


@dataclass(frozen=True)
class Row:
    """An engine of the contract.

    Attributes:
        make: Makes one.
        answer: Lets it answer what it was asked.
        slow: Makes one that does not answer while the test looks at it.
    """

    make: Callable[[], Engine]
    answer: Callable[[Engine], None]
    slow: Callable[[], Engine]


def take_turns(engine: Engine) -> None:
    """Let the engine without threads answer."""
    while engine.turn():
        pass


def answer_all(engine: Engine) -> None:
    """Let the signer answer."""
    assert isinstance(engine, LocalSigner)
    engine.answer_all()


ENGINES = {
    "threads": Row(lambda: ThreadEngine(2), nothing, lambda: ThreadEngine(1)),
    "latency": Row(lambda: LatencyEngine(0.001), nothing, lambda: LatencyEngine(600)),
    "batch": Row(lambda: BatchEngine(1), nothing, lambda: BatchEngine(1)),
    "batch-by-turns": Row(lambda: BatchEngine(0), take_turns, lambda: BatchEngine(0)),
    "manual": Row(ManualEngine, perform_all, ManualEngine),
    "signer": Row(LocalSigner, answer_all, LocalSigner),
    "function": Row(lambda: FunctionSigner(2), nothing, lambda: FunctionSigner(answers=False)),
    "coroutine-function": Row(FunctionSigner, nothing, lambda: FunctionSigner(answers=False)),
}

KINDS = ("rsa2048", "rsa4096", "p256", "p384", "p521", "ed25519", "ed448", "rsa-pss")


@pytest.fixture(params=ENGINES)
def row(request: pytest.FixtureRequest) -> Row:
    return ENGINES[request.param]


@pytest.fixture
def engine(row: Row) -> Iterator[Engine]:
    with row.make() as engine:
        yield engine


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Whatever happens in a test: every job ends, every op and every key is freed."""
    gc.collect()  # what other tests left
    before = engine_shim.counters()
    yield
    gc.collect()
    # A thread delivers its op before it gives up its own reference, and nothing tells of that.
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == before.ops_alive)
    after = engine_shim.counters()
    assert after.jobs_started - before.jobs_started == after.jobs_finished - before.jobs_finished
    assert (after.ops_alive, after.keys_alive) == (before.ops_alive, before.keys_alive)
    assert after.jobs_abandoned == before.jobs_abandoned


def make_pair(engine: Engine, identity: Identity, version: str | None = None, ciphers: str | None = None) -> Pair:
    key = engine.load_key(identity.key)
    return Pair(server_context(identity, key, ciphers), client_context(identity, version, ciphers))


def finish(pair: Pair, row: Row, engine: Engine) -> Status:
    """Run a handshake to its end, letting the engine answer each time it pauses."""
    while (status := pair.until_parked()) is Status.WANT_ASYNC:
        row.answer(engine)
        pair.wait()
    return status


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", KINDS)
def test_handshake_parks_once_and_data_flows(
    engine: Engine, row: Row, certificates: Certificates, kind: str, version: str
) -> None:
    with make_pair(engine, certificates[kind], version) as pair:
        assert finish(pair, row, engine) is Status.DONE
        assert pair.parks == 1
        assert pair.echo(b"through the engine") == b"through the engine"
    assert engine.statistics().performed == 1


def verify(identity: Identity, signature: bytes, message: bytes, scheme: str | None) -> None:
    public: Any = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        public.verify(signature, message, pss if scheme == "pss" else padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        public.verify(signature, message)


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [(kind, None) for kind in KINDS if kind != "rsa-pss"] + [("rsa2048", "pss"), ("rsa4096", "pkcs1")],
)
def test_signature_without_a_job(engine: Engine, certificates: Certificates, kind: str, scheme: str | None) -> None:
    identity = certificates[kind]
    key = engine.load_key(identity.key)
    digest = None if kind.startswith("ed") else "SHA256"
    message = b"not in a handshake" * 20
    if not engine.can_block:
        with pytest.raises(engine_shim.NoJobError):
            key.sign(message, digest=digest, padding=scheme)
        return
    verify(identity, key.sign(message, digest=digest, padding=scheme), message, scheme)


def test_static_rsa_decrypts_in_the_engine(engine: Engine, row: Row, certificates: Certificates) -> None:
    with make_pair(engine, certificates["rsa2048"], "1.2", STATIC_RSA) as pair:
        assert finish(pair, row, engine) is Status.DONE
        assert pair.parks == 1
        assert pair.echo() == b"ping"


def test_failure_is_reported_as_failure(engine: Engine, certificates: Certificates) -> None:
    if isinstance(engine, ManualEngine):
        with make_pair(engine, certificates["rsa2048"]) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.fail()
            assert pair.until_parked() is Status.ERROR
            assert "told to fail" in pair.server.errors()[0].text
            assert pair.server.errors()[0].is_engine
    elif isinstance(engine, FunctionSigner):
        engine.refuses = True
        with make_pair(engine, certificates["rsa2048"]) as pair:
            assert pair.finish() is Status.ERROR
            assert "told to fail" in pair.server.errors()[0].text
            assert pair.server.errors()[0].is_engine
    elif isinstance(engine, SignerEngine):
        with make_pair(engine, certificates["rsa2048"]) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.fail(1 if (request := engine.take()) is None else request.id, "told to fail")
            assert pair.until_parked() is Status.ERROR
            assert "told to fail" in pair.server.errors()[0].text
            assert pair.server.errors()[0].is_engine
    else:
        key = engine.load_key(certificates["rsa-pss"].key)
        with pytest.raises(engine_shim.OperationFailedError, match="padding"):
            key.sign(b"a PSS key signs nothing else", padding="pkcs1")
    assert engine.statistics().failed == 1


def test_cancel_while_parked(row: Row, certificates: Certificates) -> None:
    with row.slow() as engine:
        pair = make_pair(engine, certificates["rsa4096"])
        assert pair.until_parked() is Status.WANT_ASYNC
        pair.server.cancel()
        assert pair.until_parked() is Status.ERROR
        assert pair.server.errors()[0].is_cancelled
        assert pair.close()
        assert engine.statistics().in_flight_max == 1


def test_close_while_parked_ends_the_job(row: Row, certificates: Certificates) -> None:
    with row.slow() as engine:
        pair = make_pair(engine, certificates["rsa4096"])
        assert pair.until_parked() is Status.WANT_ASYNC
        assert pair.server.paused
        assert pair.close()


def test_cancel_after_perform(engine: Engine, row: Row, certificates: Certificates) -> None:
    pair = make_pair(engine, certificates["rsa2048"])
    assert pair.until_parked() is Status.WANT_ASYNC
    row.answer(engine)
    pair.wait()
    pair.server.cancel()
    assert pair.until_parked() is Status.ERROR
    assert pair.server.errors()[0].is_cancelled
    assert pair.close()


def test_later_ops_of_a_cancelled_connection_fail_too(engine: Engine, certificates: Certificates) -> None:
    pair = make_pair(engine, certificates["rsa2048"])
    pair.server.cancel()
    assert pair.until_parked() is Status.ERROR
    assert pair.parks == 0
    assert pair.server.errors()[0].is_cancelled
    assert pair.close()
    assert engine.statistics().submitted == 0


def test_cancel_does_not_disturb_the_others(engine: Engine, row: Row, certificates: Certificates) -> None:
    pairs = [make_pair(engine, certificates["rsa2048"]) for _ in range(8)]
    assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
    for pair in pairs[::2]:
        pair.close()
    for pair in pairs[1::2]:
        row.answer(engine)
        pair.wait()
        assert finish(pair, row, engine) is Status.DONE
        assert pair.echo() == b"ping"
        pair.close()


def test_close_with_ops_in_flight(row: Row, certificates: Certificates) -> None:
    engine = row.slow()
    pairs = [make_pair(engine, certificates["rsa4096"]) for _ in range(6)]
    assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
    assert engine.close()
    for pair in pairs:
        pair.wait()
        status = pair.until_parked()
        assert status in {Status.DONE, Status.ERROR}  # what a worker had in hand is finished
        if status is Status.ERROR:
            assert "closed" in pair.server.errors()[0].text
        pair.close()


def test_closed_engine_refuses(row: Row, certificates: Certificates) -> None:
    engine = row.make()
    key = engine.load_key(certificates["p256"].key)
    engine.close()
    pair = Pair(server_context(certificates["p256"], key), client_context(certificates["p256"]))
    assert pair.until_parked() is Status.ERROR
    assert "closed" in pair.server.errors()[0].text
    assert pair.close()
    expected = engine_shim.EngineClosedError if engine.can_block else engine_shim.NoJobError
    with pytest.raises(expected):
        key.sign(b"too late")


def run_in_child(body: Callable[[], None]) -> None:
    """Fork, run ``body`` in the child, and demand that it returns."""
    child = os.fork()
    if child == 0:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def eventfd_id(fd: int) -> str | None:
    """Tell which eventfd it is, whatever its number (proc(5)); None: none at all."""
    with contextlib.suppress(FileNotFoundError):
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        return next((line for line in lines if line.startswith("eventfd-id:")), None)
    return None


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on: fork with threads, on purpose
def test_fork_with_a_handshake_parked(row: Row, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    engine = row.make()
    parked = make_pair(engine, identity)
    assert parked.until_parked() is Status.WANT_ASYNC
    (wait_fd,) = parked.server.wait_fds()
    parents = eventfd_id(wait_fd)
    abandoned = engine_shim.counters().jobs_abandoned

    def child() -> None:
        assert eventfd_id(wait_fd) != parents
        with pytest.raises(engine_shim.ForkedError):
            parked.server.handshake()
        parked.server.cancel()  # the parent's op is in none of the child's lists
        with make_pair(engine, identity) as own:
            assert finish(own, row, engine) is Status.DONE
            assert own.echo() == b"ping"
        assert parked.server.close()  # left behind as it is
        assert engine_shim.counters().jobs_abandoned == abandoned + 1
        assert engine.close()

    run_in_child(child)
    row.answer(engine)
    parked.wait()
    assert finish(parked, row, engine) is Status.DONE
    assert parked.echo() == b"ping"
    parked.close()
    engine.close()


def test_key_outlives_its_engine_object(row: Row, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    key = row.make().load_key(identity.key)
    context, closing = server_context(identity, key), weakref.ref(key.engine)
    del key
    with Pair(context, client_context(identity)) as pair:
        status = pair.until_parked()
        if status is Status.WANT_ASYNC and row.answer is nothing:
            assert pair.finish() is Status.DONE
    del context
    if (engine := closing()) is not None:  # threads of Python's hold it until it is closed
        engine.close()
