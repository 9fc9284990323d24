"""What all signers have in common: the fallback, and what statistics tell of them."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import OperationFailedError, Status, ThreadEngine, WrongAnswerError
from support.asking import asked, ended, make_pair, said
from tlsserver import Server, TLSContext
from tlsserver.engine_sums import EngineSums
from tlsserver.errors import ConfigurationError
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.reactor import Reactor
from tlsserver.signers.base import Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import BaseEngine, Loop
    from support.certificates import Certificates


def test_request_that_nobody_answers_fails_with_the_reason(certificates: Certificates) -> None:
    with Signer("elsewhere") as signer, make_pair(signer, certificates["p256"]) as pair:
        signer.give_up(asked(signer, pair), "no signer is there")
        assert ended(pair) is Status.ERROR
        assert said(pair).count("failed in its engine") <= 1
        assert "no signer is there" in said(pair)
        assert signer.signers()[0].fallbacks == 0


def test_reason_is_said_once(certificates: Certificates) -> None:
    """Outside of a handshake as well, where it comes back through OpenSSL's queue of errors."""
    with Signer("elsewhere", can_block=True) as signer:
        key = signer.load_key(certificates["p256"].cert)

        def refuse() -> None:
            request = signer.take(timeout=None)
            assert request is not None
            signer.give_up(request, "no signer is there")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(OperationFailedError) as caught:
            key.sign(b"text")
        thread.join()
    assert str(caught.value) == "signing: the operation failed in its engine (no signer is there)"


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519"])
def test_local_key_performs_instead(certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    with ThreadEngine(1) as threads:
        others = threads.load_key(certificates["rsa4096"].key)
        fallback = [others, threads.load_key(identity.key)]
        with Signer("elsewhere", fallback=fallback) as signer, make_pair(signer, identity) as pair:
            signer.give_up(asked(signer, pair), "no signer is there")
            assert ended(pair) is Status.DONE
            (numbers,) = signer.signers()
            assert (numbers.taken, numbers.performed, numbers.failed, numbers.fallbacks) == (1, 0, 1, 1)


def test_wrong_answer_is_one_failure(certificates: Certificates) -> None:
    """With a fallback and without: the engine counts the answer, and then the request."""
    identity = certificates["p256"]
    with ThreadEngine(1) as threads:
        for fallback, fallbacks in ((None, 0), (threads.load_key(identity.key), 1)):
            with Signer("elsewhere", fallback=fallback) as signer, make_pair(signer, identity) as pair:
                request = asked(signer, pair)
                with pytest.raises(WrongAnswerError):
                    request.complete(b"rubbish", final=False)
                signer.give_up(request, "wrong", is_counted=True)
                ended(pair)
                (numbers,) = signer.signers()
                assert (numbers.performed, numbers.failed, numbers.fallbacks) == (0, 1, fallbacks)


def test_fallback_of_a_signer_that_is_closed_meanwhile(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and handing over: the thread that gives up is one that others need."""
    identity = certificates["p256"]
    with ThreadEngine(1) as threads:
        signer = Signer("elsewhere", fallback=threads.load_key(identity.key))
        with make_pair(signer, identity) as pair:
            request = asked(signer, pair)
            signer.close()
            monkeypatch.setattr(Signer, "closed", False)
            signer.give_up(request, "no signer is there")
            assert ended(pair) is Status.ERROR
        assert signer._performer is not None
        signer._performer.shutdown()  # as at the interpreter's end
        assert signer.signers()[0].fallbacks == 0
        assert not signer._hand_over(request, threads.load_key(identity.key), is_counted=False)


def test_fallback_that_is_broken_costs_no_deadline(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with ThreadEngine(1) as threads, Signer("elsewhere", fallback=threads.load_key(identity.key)) as signer:
        signer._fallback = dict.fromkeys(signer._fallback, object())  # type: ignore[arg-type] # which is no key
        with make_pair(signer, identity) as pair:
            signer.give_up(asked(signer, pair), "no signer is there")
            assert ended(pair) is Status.ERROR
            assert "the fallback fails: AttributeError" in said(pair)
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.fallbacks) == (0, 1, 0)


def test_giving_up_what_nobody_waits_for_does_nothing(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with ThreadEngine(1) as threads:
        for fallback in (None, threads.load_key(identity.key)):
            with Signer("elsewhere", fallback=fallback) as signer:
                with make_pair(signer, identity) as pair:
                    request = asked(signer, pair)
                signer.give_up(request, "too late")


def test_public_key_is_no_fallback(certificates: Certificates) -> None:
    with Signer("other") as other, pytest.raises(ConfigurationError, match="is a public key: give a private one"):
        Signer("elsewhere", fallback=other.load_key(certificates["p256"].cert))


def test_setting_that_cannot_work() -> None:
    with pytest.raises(ConfigurationError, match="signer elsewhere cannot be made: deadline is 0"):
        Signer("elsewhere", deadline=0)


class Context:
    """What sums look at."""

    server_names = None

    def __init__(self, engine: BaseEngine) -> None:
        self.engine = engine
        self.engines = (engine,)


def test_statistics_name_those_who_answer(certificates: Certificates) -> None:
    with Signer("elsewhere") as signer, make_pair(signer, certificates["p256"]) as pair:
        context: Any = Context(signer)
        sums = EngineSums(context)
        request = asked(signer, pair)
        assert [(one.name, one.in_flight, one.taken) for one in sums.signers()] == [("elsewhere", 1, 1)]
        request.fail("seen")
        ended(pair)
        (numbers,) = sums.signers()
        assert (numbers.in_flight, numbers.failed, numbers.total_seconds.count) == (0, 1, 1)
        assert numbers.as_dict()["total_seconds"]["count"] == 1


class Joining(ThreadEngine):
    """An engine that does something on each loop that uses it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.loops: list[Loop] = []
        self.joined = threading.Event()
        self.left: list[Loop] = []

    def join(self, loop: Loop) -> Callable[[], object]:
        self.loops.append(loop)
        self.joined.set()
        return lambda: self.left.append(loop)


def test_engine_joins_the_loop_before_the_first_client_and_leaves_at_the_end(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with Joining() as engine, Joining() as second:
        with Server(TLSContext(identity.cert, identity.key, engine=engine), EchoProtocol, port=0) as server:
            assert engine.joined.wait(10)
            engine.close()
            server.swap_context(TLSContext(identity.cert, identity.key, engine=second))
            with socket.create_connection(server.address):
                assert second.joined.wait(10)
        assert engine.loops == engine.left
        assert second.loops == second.left == engine.loops
        assert isinstance(engine.loops[0], Reactor)


def test_the_servers_loop_is_a_loop_for_engines() -> None:
    near, far = socket.socketpair()
    reactor = Reactor()
    loop: Loop = reactor  # what mypy checks here is the rest of the test
    try:
        registration = loop.add(near.fileno(), selectors.EVENT_READ, lambda _: None)
        loop.modify(registration, 0)
        loop.remove(registration)
        loop.call_later(60, lambda: None).cancel()
    finally:
        reactor.close()
        near.close()
        far.close()
