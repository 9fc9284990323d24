"""Plain functions on worker threads: how many, those that never return, and the end."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import Job, Status
from support import leaks
from support.functions import Function, Gate, pair_with
from support.waiting import PATIENCE
from tlsserver.signers.callable import CallableSigner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import SignRequest
    from support.certificates import Certificates, Identity

LONG = 600.0
SHORT = 0.1


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before, numbers = leaks.holdings(), engine_shim.counters()
    yield
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == numbers.ops_alive)
    assert engine_shim.counters().ops_alive == numbers.ops_alive
    assert leaks.settled(before).threads == before.threads


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def workers() -> int:
    return sum(thread.name == "tls-callable" for thread in threading.enumerate())


def test_threads_start_as_they_are_needed(identity: Identity, gate: Gate) -> None:
    with CallableSigner(Function(identity, gate), threads=3, deadline=LONG) as signer:
        assert workers() == 0
        key = signer.load_key(identity.cert)
        assert workers() == 1
        jobs = [Job(key.sign, b"message") for _ in range(5)]
        for job in jobs:
            job.start()
        gate.wait_for(3)
        assert workers() == 3
        (numbers,) = signer.signers()
        assert (numbers.in_flight, numbers.taken) == (3, 3)
        gate.open()
        leaks.wait_until(lambda: signer.signers()[0].performed == 5)
        for job in jobs:
            job.start()
            assert job.result()
        assert workers() == 3
    assert workers() == 0


def test_function_that_never_returns_costs_its_handshakes_only(identity: Identity, gate: Gate) -> None:
    stuck = [True]

    def hang(request: SignRequest) -> None:
        if stuck:
            stuck.pop()
            gate(request)

    signer = CallableSigner(Function(identity, hang), threads=1, deadline=SHORT)
    with pair_with(signer, identity) as pair:
        assert pair.finish() is Status.ERROR
    # Another thread is there as soon as the watcher knows; the deadline is short.
    leaks.wait_until(lambda: workers() == 2)
    with pair_with(signer, identity) as pair:
        assert pair.finish() is Status.DONE
    assert not signer.close(0.01)
    gate.open()
    assert signer.close(PATIENCE)


def test_no_more_than_twice_the_threads(identity: Identity, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with CallableSigner(Function(identity, gate), threads=2, deadline=SHORT, breaker_failures=1000) as signer:
        key = signer.load_key(identity.cert)
        jobs = [Job(key.sign, b"message") for _ in range(7)]
        for job in jobs:
            job.start()
        gate.wait_for(2)
        leaks.wait_until(lambda: signer.signer_times().expired == 7)
        more = [Job(key.sign, b"message") for _ in range(3)]
        for job in more:
            job.start()
        gate.wait_for(2)
        leaks.wait_until(lambda: signer.signer_times().expired == 10)
        leaks.wait_until(lambda: caplog.records)
        assert workers() == 4
        assert "2 of its threads do not return" in caplog.records[0].getMessage()
        gate.open()
        # They are too many now: as many as are wanted stay.
        leaks.wait_until(lambda: workers() == 2)
        assert workers() == 2
        late = Job(key.sign, b"message")
        late.start()
        leaks.wait_until(lambda: signer.signer_times().completed == 1)
        for job in (*jobs, *more, late):
            job.close()


def test_trial_that_never_returns_is_not_the_last(identity: Identity, gate: Gate) -> None:
    """The breaker waits for its trial: it has to hear of its end."""
    problems = ["raise", "hang"]

    def fail(request: SignRequest) -> None:
        problem = problems.pop(0) if problems else ""
        if problem == "raise":
            raise OSError
        if problem == "hang":
            gate(request)

    function = Function(identity, fail)
    with CallableSigner(function, attempts=1, deadline=SHORT, breaker_failures=1, breaker_seconds=0.001) as signer:
        for _ in range(2):
            leaks.wait_until(lambda: signer.signers()[0].breaker in ("closed", "half-open"))
            with pair_with(signer, identity) as pair:
                assert pair.finish() is Status.ERROR
        leaks.wait_until(lambda: signer._calls._breaker.allows(time.monotonic()))
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.DONE
        gate.open()


def test_function_can_see_that_nobody_waits(identity: Identity) -> None:
    seen = threading.Event()
    begun = threading.Event()

    def watch(request: SignRequest) -> None:
        begun.set()
        leaks.wait_until(lambda: not request.is_open)
        seen.set()

    with CallableSigner(Function(identity, watch), deadline=LONG, breaker_failures=1) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            assert begun.wait(PATIENCE)
        assert seen.wait(PATIENCE)
        assert signer.signers()[0].breaker == "closed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_end_of_the_process_ends_a_handshake(
    identity: Identity, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    problems = [error()]

    def fail(_: SignRequest) -> None:
        if problems:
            raise problems.pop()

    with CallableSigner(Function(identity, fail)) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.ERROR
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.DONE
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_closing_ends_the_pause_before_the_next_try(identity: Identity) -> None:
    failed = threading.Event()

    def fail(_: SignRequest) -> None:
        failed.set()
        raise OSError

    signer = CallableSigner(Function(identity, fail), attempts=100, deadline=LONG, breaker_failures=1000)
    with pair_with(signer, identity) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        assert failed.wait(PATIENCE)
        assert signer.close(PATIENCE)
        assert pair.finish() is Status.ERROR


def test_function_may_close_its_signer(identity: Identity) -> None:
    closed = threading.Event()

    def close(_: SignRequest) -> None:
        signer.close(1)
        closed.set()

    signer = CallableSigner(Function(identity, close))
    with pair_with(signer, identity) as pair:
        assert pair.finish() is Status.ERROR
    assert closed.wait(PATIENCE)
    assert signer.close(PATIENCE)


EXIT = """
import sys, threading
from engine_shim import Job
from tlsserver.signers.callable import CallableSigner

begun = threading.Event()

def hang(request):
    begun.set()
    threading.Event().wait()

signer = CallableSigner(hang, deadline=600)
job = Job(signer.load_key(sys.argv[1]).sign, b"message")
job.start()
begun.wait()
print("bye")
"""


def test_process_ends_without_a_function_that_never_returns(identity: Identity) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(identity.cert)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")
