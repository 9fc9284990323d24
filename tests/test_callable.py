"""Signers that are functions, plain or coroutine functions: what holds for both."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import engine_shim
from engine_shim import EngineClosedError, Status, ThreadEngine
from support import leaks
from support.asking import private_key, raw_decryption, said, sign
from support.functions import Function, LaterFunction, pair_with
from support.pair import STATIC_RSA, Pair, client_context, server_context
from tlsserver.errors import ConfigurationError
from tlsserver.signers.callable import CallableSigner, RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import SignRequest
    from support.certificates import Certificates, Identity

KINDS = ("rsa2048", "p256", "p384", "ed25519", "rsa-pss")
FUNCTIONS = {"plain": Function, "coroutine": LaterFunction}
LONG = 600.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before, numbers = leaks.holdings(), engine_shim.counters()
    yield
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == numbers.ops_alive)
    after = engine_shim.counters()
    assert (after.ops_alive, after.keys_alive) == (numbers.ops_alive, numbers.keys_alive)
    assert leaks.settled(before).threads == before.threads


@pytest.fixture(params=FUNCTIONS)
def kind(request: pytest.FixtureRequest) -> Any:
    return FUNCTIONS[request.param]


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("key_kind", KINDS)
def test_handshake(certificates: Certificates, kind: Any, key_kind: str, version: str) -> None:
    identity = certificates[key_kind]
    with CallableSigner(kind(identity)) as signer, pair_with(signer, identity, version) as pair:
        assert pair.finish() is Status.DONE
        assert pair.echo(b"signed by a function") == b"signed by a function"
        (numbers,) = signer.signers()
        assert (numbers.name, numbers.state, numbers.breaker) == ("callable", "up", "closed")
        assert (numbers.taken, numbers.performed, numbers.failed, numbers.retries) == (1, 1, 0, 0)
        assert numbers.run_seconds.count == 1
    assert signer.signers()[0].state == "down"


def test_decryption(certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    key = private_key(identity)
    with CallableSigner(lambda request: raw_decryption(request, key)) as signer:
        context = server_context(identity, signer.load_key(identity.cert), STATIC_RSA)
        with Pair(context, client_context(identity, "1.2", STATIC_RSA)) as pair:
            assert pair.finish() is Status.DONE


def test_signature_outside_a_handshake_waits(kind: Any, identity: Identity) -> None:
    with CallableSigner(kind(identity)) as signer:
        public: Any = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
        signature = signer.load_key(identity.cert).sign(b"a document")
        public.verify(signature, b"a document", ec.ECDSA(hashes.SHA256()))


def test_failure_is_tried_again(kind: Any, identity: Identity) -> None:
    problems: list[Exception] = [ConnectionError("reset"), TimeoutError("slow")]

    def fail(_: SignRequest) -> None:
        if problems:
            raise problems.pop()

    with CallableSigner(kind(identity, fail), attempts=3) as signer, pair_with(signer, identity) as pair:
        assert pair.finish() is Status.DONE
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.retries) == (1, 2, 2)


def test_failure_is_the_handshakes_in_the_end(kind: Any, identity: Identity) -> None:
    def fail(_: SignRequest) -> None:
        raise ConnectionError("no KMS\nat all")

    with CallableSigner(kind(identity, fail)) as signer, pair_with(signer, identity) as pair:
        assert pair.finish() is Status.ERROR
        assert "signer callable: it raised ConnectionError: no KMS at all" in said(pair)
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.retries) == (0, 2, 1)


def test_refusal_is_not_tried_again(kind: Any, identity: Identity) -> None:
    def refuse(request: SignRequest) -> None:
        message = f"no {request.scheme} here"
        raise RequestRefusedError(message)

    function = kind(identity, refuse)
    with CallableSigner(function, breaker_failures=1) as signer:
        for _ in range(2):
            with pair_with(signer, identity) as pair:
                assert pair.finish() is Status.ERROR
                assert "no ecdsa_secp256r1_sha256 here" in said(pair)
        assert signer.signers()[0].breaker == "closed"
    assert len(function.asked) == 2


def test_wrong_signature_is_tried_again(identity: Identity, certificates: Certificates) -> None:
    keys = [private_key(identity), private_key(certificates["p384"])]
    with CallableSigner(lambda request: sign(request, keys.pop())) as signer, pair_with(signer, identity) as pair:
        assert pair.finish() is Status.DONE
        assert signer.signers()[0].retries == 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 71, b"x" * 100_000, "signature", None])
def test_rubbish_fails_the_handshake(identity: Identity, rubbish: Any, version: str) -> None:
    with CallableSigner(lambda _: rubbish) as signer, pair_with(signer, identity, version) as pair:
        assert pair.finish() is Status.ERROR
        assert "signer" in said(pair)


def test_signature_of_another_request_does_not_help(identity: Identity) -> None:
    key = private_key(identity)
    first: list[bytes] = []

    def repeat(request: SignRequest) -> bytes:
        first.append(sign(request, key))
        return first[0]

    with CallableSigner(repeat, attempts=1) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.DONE
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.ERROR
        assert signer.signers()[0].failed == 1


@pytest.mark.parametrize("returns_it_too", [False, True])
def test_function_may_answer_by_itself(
    identity: Identity, returns_it_too: bool, caplog: pytest.LogCaptureFixture
) -> None:
    key = private_key(identity)

    def answer(request: SignRequest) -> Any:
        signature = sign(request, key)
        request.complete(signature)
        return signature if returns_it_too else None

    with CallableSigner(answer) as signer, pair_with(signer, identity) as pair:
        assert pair.finish() is Status.DONE
        leaks.wait_until(lambda: len(caplog.records) == returns_it_too)  # once it is closed, the second one is late
    assert len(caplog.records) == returns_it_too


def test_fallback_performs_what_the_function_does_not(kind: Any, identity: Identity) -> None:
    def fail(_: SignRequest) -> None:
        raise OSError

    with ThreadEngine(1) as threads:
        fallback = threads.load_key(identity.key)
        function = kind(identity, fail)
        with CallableSigner(
            function, fallback=fallback, attempts=1, breaker_failures=2, breaker_seconds=LONG
        ) as signer:
            for _ in range(4):
                with pair_with(signer, identity) as pair:
                    assert pair.finish() is Status.DONE
            (numbers,) = signer.signers()
            assert (numbers.fallbacks, numbers.breaker) == (4, "open")
            assert (numbers.performed, numbers.failed) == (0, 4)
        assert len(function.asked) == 2  # from then on it was not asked


def test_open_breaker_fails_handshakes_at_once(kind: Any, identity: Identity) -> None:
    def fail(_: SignRequest) -> None:
        raise OSError

    function = kind(identity, fail)
    with CallableSigner(function, attempts=1, breaker_failures=1, breaker_seconds=LONG, deadline=LONG) as signer:
        for reason in ("it raised OSError", "has failed again and again"):
            with pair_with(signer, identity) as pair:
                assert pair.finish() is Status.ERROR
                assert reason in said(pair)
    assert len(function.asked) == 1


def test_signer_that_returns_is_asked_again(kind: Any, identity: Identity) -> None:
    problems: list[Exception] = [OSError()]

    def fail(_: SignRequest) -> None:
        if problems:
            raise problems.pop()

    with CallableSigner(kind(identity, fail), attempts=1, breaker_failures=1, breaker_seconds=0.001) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.ERROR
        leaks.wait_until(lambda: signer.signers()[0].breaker == "half-open")
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.DONE
        leaks.wait_until(lambda: signer.signers()[0].breaker == "closed")  # told just after the handshake
        assert signer.signers()[0].breaker == "closed"


def test_closed_before_it_was_used(kind: Any, identity: Identity) -> None:
    signer = CallableSigner(kind(identity))
    assert signer.close()
    with pytest.raises(EngineClosedError):
        signer.load_key(identity.cert).sign(b"nobody is there")
    assert signer.close()


@pytest.mark.parametrize("used", [False, True])
def test_forked_child_has_its_own(kind: Any, identity: Identity, used: bool) -> None:
    with CallableSigner(kind(identity)) as signer:
        key = signer.load_key(identity.cert)
        if used:
            key.sign(b"by the parent")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signed = key.sign(b"by the child")
                (numbers,) = signer.signers()
                code = 0 if signed and numbers.performed == 1 and signer.close() else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert key.sign(b"by the parent")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads is 0, it must be between 1 and 1024"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"attempts": 0}, "attempts is 0"),
        ({"breaker_failures": 0}, "breaker_failures is 0"),
        ({"deadline": -1}, "deadline is -1"),
        ({"queue_size": 0}, "queue_size is 0"),
        ({"function": 5}, "cannot be made of a int: give a function that takes a request"),
        ({"loop": object()}, "give a coroutine function, which is what a loop is for"),
    ],
)
def test_setting_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        CallableSigner(**{"function": lambda _: b"", **settings})
    assert "\n" not in str(caught.value)


def test_function_of_any_form_is_recognised(identity: Identity) -> None:
    """Bound methods and partial functions as well."""
    import functools  # noqa: PLC0415

    class Client:
        async def sign(self, key_id: str, request: SignRequest) -> bytes:
            assert key_id == "alias/web"
            return await LaterFunction(identity)(request)

    with CallableSigner(functools.partial(Client().sign, "alias/web")) as signer:
        assert signer.load_key(identity.cert).sign(b"message")
