"""Requests: what becomes of late, double and foreign answers, of deadlines, and of those that wait for requests."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import engine_shim
from engine_shim import (
    DoubleAnswerError,
    EngineClosedError,
    ForeignAnswerError,
    ForkedError,
    KeyMismatchError,
    LateAnswerError,
    NoJobError,
    OperationExpiredError,
    OperationFailedError,
    SignerEngine,
    Status,
    ThreadEngine,
)
from support import leaks
from support.asking import asked, ended, make_pair, private_key, said, sign, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

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


def test_answers_that_come_twice_or_late(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        answer = sign(request, private_key(identity))
        request.complete(answer)
        with pytest.raises(DoubleAnswerError):
            request.complete(answer)
        with pytest.raises(DoubleAnswerError):
            request.fail("after all")
        assert ended(pair) is Status.DONE
    with make_pair(engine, identity) as pair:
        late = asked(engine, pair)
    assert not late.is_open
    with pytest.raises(LateAnswerError):
        late.complete(sign(late, private_key(identity)))
    with pytest.raises(LateAnswerError):
        late.fail("nobody hears it")


def test_answers_by_number(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        for number in (0, -1, request.id + 1, 2**63, 2**64):
            with pytest.raises(ForeignAnswerError, match="not of this engine"):
                engine.complete(number, b"")
        engine.complete(request.id, sign(request, private_key(identity)))
        with pytest.raises(LateAnswerError):
            engine.fail(request.id, "again")
        assert ended(pair) is Status.DONE


def test_refusal_is_the_handshakes_failure(engine: SignerEngine, certificates: Certificates) -> None:
    with make_pair(engine, certificates["p256"]) as pair:
        asked(engine, pair).fail("the token is gone\0and with it " + "x" * 500)
        assert ended(pair) is Status.ERROR
        assert "the token is gone" in said(pair)
    assert engine.signer_times().refused == 1


def test_reason_is_one_line_of_text(engine: SignerEngine, certificates: Certificates) -> None:
    """What an exception says may have a file's name in it that is no text, and lines that are not the log's."""
    with make_pair(engine, certificates["p256"]) as pair:
        asked(engine, pair).fail("no \udcff\r\n2026 forged: " + "\u00e9" * 100)
        assert ended(pair) is Status.ERROR
        assert "no    2026 forged: \u00e9" in said(pair)
        assert "\ufffd" not in said(pair)


@pytest.mark.parametrize("answer", [10, None, "text", [1, 2]])
def test_answer_that_is_no_bytes_is_the_callers_mistake(
    engine: SignerEngine, certificates: Certificates, answer: Any
) -> None:
    with make_pair(engine, certificates["p256"]) as pair:
        request = asked(engine, pair)
        with pytest.raises(TypeError):
            request.complete(answer)
        assert request.is_open


@pytest.mark.parametrize("is_taken", [False, True])
def test_deadline_holds_whether_taken_or_not(certificates: Certificates, is_taken: bool) -> None:
    with (
        SignerEngine(deadline=0.05) as engine,
        make_pair(engine, certificates["p256"]) as pair,
        make_pair(engine, certificates["p256"]) as second,
    ):
        assert pair.until_parked() is Status.WANT_ASYNC
        request = taken(engine) if is_taken else None
        assert second.until_parked() is Status.WANT_ASYNC
        assert ended(pair) is Status.ERROR
        assert "has not answered in time" in said(pair)
        assert ended(second) is Status.ERROR
        if request is not None:
            assert request.deadline - request.submitted == pytest.approx(0.05)
            with pytest.raises(LateAnswerError):
                request.complete(b"too late")
        assert engine.signer_times().expired == 2
        assert engine.take() is None


def test_deadline_holds_for_those_that_wait_for_room(certificates: Certificates) -> None:
    with SignerEngine(deadline=0.05, queue_size=1) as engine:
        pairs = [make_pair(engine, certificates["p256"]) for _ in range(3)]
        for pair in pairs:
            assert pair.until_parked() is Status.WANT_ASYNC
        assert engine.statistics().waiting == 2
        for pair in pairs:
            assert ended(pair) is Status.ERROR
            pair.close()
        assert engine.signer_times().expired == 3


def test_outside_a_job_it_says_whether_it_can_wait(engine: SignerEngine, certificates: Certificates) -> None:
    with pytest.raises(NoJobError):
        engine.load_key(certificates["p256"].cert).sign(b"nobody would answer")


def test_worker_threads_answer_what_another_thread_waits_for(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with SignerEngine(deadline=LONG, can_block=True) as engine:

        def work() -> None:
            try:
                while (request := engine.take(timeout=None)) is not None:
                    request.complete(sign(request, private_key(identity)))
            except EngineClosedError:
                pass

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        key = engine.load_key(identity.cert)
        public: Any = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
        for _ in range(20):
            public.verify(key.sign(b"message"), b"message", ec.ECDSA(hashes.SHA256()))
        engine.close()
        for worker in workers:
            worker.join(10)
            assert not worker.is_alive()
        with pytest.raises(EngineClosedError):
            engine.take(timeout=None)


def test_expired_signature_outside_a_job_is_a_timeout(certificates: Certificates) -> None:
    with SignerEngine(deadline=0.01, can_block=True) as engine:
        key = engine.load_key(certificates["p256"].cert)
        with pytest.raises(OperationExpiredError):
            key.sign(b"nobody answers")


def test_answer_of_a_closed_engine_is_late(certificates: Certificates) -> None:
    with SignerEngine(deadline=LONG) as engine, make_pair(engine, certificates["p256"]) as pair:
        request = asked(engine, pair)
        engine.close()
        assert ended(pair) is Status.ERROR
        with pytest.raises(LateAnswerError):
            request.complete(b"")


def test_request_in_a_forked_child(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        answer = sign(request, private_key(identity))
        parents = engine.fileno()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                request.complete(answer)
            except ForkedError:
                code = 0 if engine.take() is None and engine.fileno() >= 0 and parents >= 0 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        request.complete(answer)
        assert ended(pair) is Status.DONE


def test_local_key_performs_in_its_place(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    with ThreadEngine(1) as threads, make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        for wrong in (engine.load_key(identity.cert), threads.load_key(certificates["p256"].key)):
            with pytest.raises(KeyMismatchError):
                request.perform(wrong)
        request.perform(threads.load_key(identity.key))
        assert ended(pair) is Status.DONE
        with pytest.raises(DoubleAnswerError):
            request.perform(threads.load_key(identity.key))


def test_times_and_counts(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        assert engine.statistics().in_flight == 1
        request.complete(sign(request, private_key(identity)))
        ended(pair)
    times = engine.signer_times()
    assert (times.taken, times.completed, times.refused, times.wrong, times.expired) == (1, 1, 0, 0, 0)
    for histogram in (times.queue, times.run, times.total):
        assert sum(histogram.counts) == 1
        assert len(histogram.counts) == len(histogram.bounds) + 1
    assert times.total.sum == pytest.approx(times.queue.sum + times.run.sum)
    assert times.queue.bounds[0] == pytest.approx(0.0001)
    assert times.queue.bounds[-1] == pytest.approx(50)
    assert engine.statistics().in_flight == 0


@pytest.mark.parametrize(("name", "value"), [("deadline", 0), ("deadline", 3601), ("queue_size", 0)])
def test_settings_out_of_range(name: str, value: float) -> None:
    settings: Any = {name: value}
    with pytest.raises(ValueError, match=name):
        SignerEngine(**settings)


def test_expired_is_a_failed_operation() -> None:
    assert issubclass(OperationExpiredError, OperationFailedError)
