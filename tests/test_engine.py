"""What engines have in common beside the contract: arguments, statistics, the bounded queue, closing."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import LatencyEngine, ManualEngine, Status, ThreadEngine
from support import leaks
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: ThreadEngine(0), "threads"),
        (lambda: ThreadEngine(5000), "threads"),
        (lambda: ThreadEngine(1, queue_size=0), "queue_size"),
        (lambda: LatencyEngine(-1), "seconds"),
        (lambda: LatencyEngine(float("nan")), "seconds"),
        (lambda: LatencyEngine(1e9), "seconds"),
        (lambda: LatencyEngine(1, threads=0), "threads"),
    ],
)
def test_arguments_are_checked(make: Callable[[], object], what: str) -> None:
    with pytest.raises(ValueError, match=f"{what} is .*, it must be between"):
        make()


def test_names() -> None:
    with ThreadEngine(1) as threads, LatencyEngine(0) as latency, ManualEngine() as manual:
        assert [engine.name for engine in (threads, latency, manual)] == ["threads", "latency", "manual"]
        assert [engine.can_block for engine in (threads, latency, manual)] == [True, True, False]
        assert not threads.closed
    assert threads.closed


def test_full_queue_makes_ops_wait_in_their_connections(certificates: Certificates) -> None:
    """With room for one op, twenty handshakes all finish, and nothing spins: each parks once."""
    identity = certificates["rsa4096"]
    with ThreadEngine(1, queue_size=1) as engine:
        context = server_context(identity, engine.load_key(identity.key))
        pairs = [Pair(context, client_context(identity)) for _ in range(20)]
        assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
        assert engine.statistics().queue_full > 0
        for pair in reversed(pairs):
            pair.wait()
            assert pair.finish() is Status.DONE
            assert pair.parks == 1
            pair.close()
        statistics = engine.statistics()
        assert (statistics.performed, statistics.waiting, statistics.queued) == (20, 0, 0)


def test_op_that_waits_for_room_can_be_cancelled(certificates: Certificates) -> None:
    identity = certificates["rsa4096"]
    with ThreadEngine(1, queue_size=1) as engine:
        context = server_context(identity, engine.load_key(identity.key))
        pairs = [Pair(context, client_context(identity)) for _ in range(12)]
        assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
        for pair in pairs[::-1][:10]:
            assert pair.close()
        for pair in pairs[:2]:
            assert pair.finish() is Status.DONE
            pair.close()
        assert engine.statistics().waiting == 0


@pytest.mark.serial  # thirty handshakes have to come to their op within the latency
def test_latency_is_kept_whatever_the_number_in_flight(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with LatencyEngine(0.3) as engine:
        context = server_context(identity, engine.load_key(identity.key))
        pairs = [Pair(context, client_context(identity)) for _ in range(30)]
        assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
        assert engine.statistics().in_flight_max == 30
        for pair in pairs:
            assert pair.finish() is Status.DONE
            pair.close()


@pytest.mark.parametrize("method", ["perform", "begin", "deliver", "fail", "wake"])
def test_manual_engine_with_nothing_to_do(method: str) -> None:
    with ManualEngine() as engine, pytest.raises(IndexError, match=method):
        getattr(engine, method)(0)


def test_closing_twice_and_after_use(certificates: Certificates) -> None:
    engine = ThreadEngine(1)
    assert engine.load_key(certificates["p256"].key).sign(b"once")
    assert engine.close()
    assert engine.close()


@pytest.mark.parametrize("timeout", [-0.9, float("-inf"), float("nan"), 0, 1e10, float("inf")])
def test_any_timeout_comes_to_an_end(certificates: Certificates, timeout: float) -> None:
    engine = ThreadEngine(2)
    engine.load_key(certificates["p256"].key).sign(b"starts the threads")
    engine.close(timeout)
    assert engine.close(30)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on: fork with threads, on purpose
def test_fork_does_not_wait_for_the_backlog(certificates: Certificates) -> None:
    """A fork waits for what workers have in hand; what is queued is still queued after it."""
    identity = certificates["rsa4096"]
    with ThreadEngine(1) as engine:
        context = server_context(identity, engine.load_key(identity.key))
        pairs = [Pair(context, client_context(identity)) for _ in range(120)]
        assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
        child = os.fork()
        if child == 0:
            os._exit(engine.statistics().in_flight)
        left = engine.statistics().queued
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert left > 0
        for pair in pairs:
            pair.close()


def test_engine_that_nobody_uses_ends_its_threads(certificates: Certificates) -> None:
    gc.collect()
    before = engine_shim.counters().engines_alive
    key = ThreadEngine(3).load_key(certificates["p256"].key)
    key.sign(b"starts the threads")
    assert engine_shim.counters().engines_alive == before + 1
    del key
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().engines_alive == before)  # detached workers end a moment later
    assert engine_shim.counters().engines_alive == before


def test_two_engines_in_one_context(certificates: Certificates) -> None:
    """An RSA key in one engine, a P-256 key in another: each handshake goes to its own."""
    with ManualEngine() as slow, ThreadEngine(1) as quick:
        context = server_context(certificates["rsa2048"], slow.load_key(certificates["rsa2048"].key))
        context.use_certificate_file(str(certificates["p256"].cert))
        quick.load_key(certificates["p256"].key).use(context)
        ecdsa = client_context(certificates["p256"], "1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
        rsa = client_context(certificates["p256"], "1.2", "ECDHE-RSA-AES128-GCM-SHA256")
        with Pair(context, rsa) as waiting, Pair(context, ecdsa) as passing:
            assert waiting.until_parked() is Status.WANT_ASYNC
            assert passing.finish() is Status.DONE
            slow.perform()
            assert waiting.finish() is Status.DONE


def threads() -> list[int]:
    """Give the numbers of this process's threads (proc(5))."""
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def test_workers_give_way_to_the_loop(certificates: Certificates) -> None:
    """sched(7): one nice value a thread."""
    with ThreadEngine(1) as engine:
        assert engine.load_key(certificates["p256"].key).sign(b"so that there is a worker")
        nice = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads()}
    own = nice[threading.get_native_id()]
    assert min(own + 5, 19) in nice.values()
