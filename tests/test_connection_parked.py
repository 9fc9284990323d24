"""A connection whose job is paused, or that waits for one: resuming, polling, cancelling, draining."""

from __future__ import annotations

import logging

import pytest
from helpers_core import Scene

from tlsserver.errors import (
    EngineError,
)
from tlsserver.parking import Park
from tlsserver.state import State
from tlsserver.watch import WaitFd, Watch
from tlsserver.wire import Peek, Step

# Parking


def test_parked_and_resumed() -> None:
    scene = Scene()
    scene.wire.fds = (7, 9)
    scene.park()
    assert scene.state() is State.PARKED
    assert scene.connection.watch() == Watch(read=True, wait_fds=(WaitFd(7, 1), WaitFd(9, 2)), deadline=scene.now + 10)
    assert scene.counters.parked_now == scene.counters.parked_max == scene.counters.handshakes_parked == 1
    scene.now += 0.25
    scene.wire.script("handshake", Step.DONE)
    scene.resume()
    assert scene.state() is State.OPEN
    assert scene.connection.watch().wait_fds == ()
    assert scene.protocol.transport is not None
    assert scene.protocol.transport.get_extra_info("park") == Park(1, 0.25)
    assert scene.counters.parked_now == 0
    assert scene.counters.park_seconds.snapshot().sum == pytest.approx(0.25)
    assert scene.counters.jobs_ended == 1


def test_readable_means_retry_and_not_finished() -> None:
    scene = Scene()
    scene.park()
    for fds in ((7,), (7, 8), (), (8,)):
        scene.wire.fds = fds
        scene.wire.script("handshake", Step.WANT_ASYNC)
        scene.resume()
        assert scene.state() is State.PARKED
        assert tuple(fd.number for fd in scene.connection.watch().wait_fds) == fds
    assert scene.counters.handshakes_parked == 1
    assert scene.counters.park_seconds.snapshot().count == 0


def test_a_handshake_that_parks_twice_counts_once() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("handshake", Step.WANT_READ, Step.WANT_ASYNC, Step.DONE)
    scene.resume()
    assert scene.state() is State.HANDSHAKING
    scene.readable()
    scene.resume()
    assert scene.connection.park.parks == 2
    assert scene.counters.handshakes_parked == 1
    assert scene.counters.park_seconds.snapshot().count == 2


def test_a_resume_that_nobody_needs_does_nothing() -> None:
    scene = Scene()
    calls = list(scene.wire.calls)
    scene.resume()
    assert scene.wire.calls == calls
    scene.open()
    calls = list(scene.wire.calls)
    scene.resume()
    assert scene.wire.calls == calls


def test_without_wait_fds_it_is_polled_with_back_off() -> None:
    scene = Scene(timeout_handshake=1000)
    scene.wire.fds = ()
    scene.park()
    delays = []
    for _ in range(9):
        before = scene.now
        scene.wire.script("handshake", Step.WANT_ASYNC)
        scene.expire()
        delays.append(round(scene.now - before, 6))
    assert delays == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.05]
    scene.wire.script("handshake", Step.DONE)
    scene.expire()
    assert scene.state() is State.OPEN


def test_polling_does_not_outlive_the_deadline() -> None:
    scene = Scene(timeout_handshake=0.0015)
    scene.wire.fds = ()
    scene.park()
    scene.wire.script("handshake", Step.WANT_ASYNC)
    scene.expire()
    assert scene.connection.watch().deadline == pytest.approx(1000.0015)
    scene.expire()
    assert scene.ended()


def test_parked_time_counts_against_the_handshakes_deadline(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.park()
    with caplog.at_level(logging.INFO):
        scene.expire()
    assert scene.ended()
    assert scene.counters.handshakes_failed == 1
    assert scene.counters.park_seconds.snapshot().count == 1
    assert caplog.messages == [
        "handshake with a test failed: not finished within 10 s: its operation is still in the engine"
    ]


def test_the_engine_fails() -> None:
    scene = Scene()
    scene.park()
    scene.wire.error = EngineError("the operation failed in its engine")
    scene.wire.script("handshake", Step.FAILED)
    scene.resume()
    assert scene.ended()
    assert scene.counters.handshakes_failed == 1


# The client while parked


@pytest.mark.parametrize("found", [Peek.END, Peek.BROKEN])
def test_a_client_that_leaves_is_noticed(found: Peek, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("peek", found)
    with caplog.at_level(logging.INFO):
        scene.readable()
    assert scene.ended()
    assert scene.counters.handshakes_failed == 1
    assert "the client left" in caplog.text


def test_bytes_that_wait_do_not_spin() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("peek", Peek.BYTES)
    scene.readable()
    assert not scene.connection.watch().read
    scene.wire.script("handshake", Step.WANT_ASYNC)
    scene.resume()
    assert not scene.connection.watch().read
    scene.wire.script("handshake", Step.WANT_READ)
    scene.resume()
    assert scene.connection.watch().read
    scene.wire.script("handshake", Step.WANT_ASYNC)
    scene.readable()
    assert scene.connection.watch().read, "a new park begins to look again"


def test_nothing_to_see_is_no_end() -> None:
    scene = Scene()
    scene.park()
    scene.readable()
    assert scene.state() is State.PARKED
    assert scene.connection.watch().read


# No job to be had


def test_queued_until_a_job_may_be_had() -> None:
    scene = Scene()
    scene.wire.script("handshake", Step.WANT_ASYNC_JOB)
    scene.readable()
    assert scene.state() is State.QUEUED
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 10)
    assert scene.jobs.waiting == [scene.place]
    assert scene.counters.queued_now == 1
    scene.wire.script("handshake", Step.WANT_ASYNC_JOB, Step.WANT_ASYNC, Step.DONE)
    scene.resume()
    assert scene.jobs.waiting == [scene.place]
    scene.resume()
    assert scene.state() is State.PARKED
    assert scene.jobs.waiting == []
    assert scene.counters.queued_now == 0
    scene.resume()
    assert scene.state() is State.OPEN
    assert scene.connection.park.parks == 1, "waiting for a job is not parking"


@pytest.mark.parametrize("found", [Peek.END, Peek.BROKEN])
def test_a_client_that_leaves_the_queue(found: Peek) -> None:
    scene = Scene()
    scene.wire.script("handshake", Step.WANT_ASYNC_JOB)
    scene.readable()
    scene.wire.script("peek", found)
    scene.readable()
    assert scene.ended()


def test_the_queue_has_the_handshakes_deadline() -> None:
    scene = Scene()
    scene.wire.script("handshake", Step.WANT_ASYNC_JOB)
    scene.readable()
    scene.expire()
    assert scene.ended()


# Draining


def test_a_job_that_is_not_ours_to_end_is_drained() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("close", False, False)
    scene.wire.fds = (5,)
    scene.expire()
    assert scene.state() is State.DRAINING
    assert [fd.number for fd in scene.connection.watch().wait_fds] == [5]
    assert scene.connection.watch()._replace(wait_fds=()) == Watch()
    assert scene.counters.draining_now == 1
    assert scene.counters.handshakes_in_progress == scene.counters.parked_now == scene.counters.jobs_ended == 0
    scene.resume()
    assert scene.state() is State.DRAINING
    scene.resume()
    assert scene.ended()
    assert scene.counters.jobs_ended == 1


def test_draining_without_wait_fds_is_polled() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("close", False)
    scene.wire.fds = ()
    scene.connection.abort(scene.now)
    scene.expire()
    assert scene.ended()


def test_nothing_else_happens_to_a_draining_connection() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("close", False)
    scene.connection.abort(scene.now)
    calls = list(scene.wire.calls)
    for use in (scene.connection.readable, scene.connection.writable, scene.connection.turn, scene.connection.abort):
        use(scene.now)
    scene.connection.expire(scene.now + 1e6)
    scene.connection.close()
    scene.settle()
    assert scene.wire.calls == calls
