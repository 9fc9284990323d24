"""Connections that share a line for jobs, and one whose engine takes no handshakes: no OpenSSL, no clock."""

from __future__ import annotations

from typing import Any

import pytest
from helpers_core import Scene

from tlsserver.drains import Drain
from tlsserver.errors import PeerLeftError
from tlsserver.jobs import JobQueue
from tlsserver.state import State
from tlsserver.wire import Peek, Step

# Without jobs for everybody


class Crowd:
    """Connections of one loop, in the order of their arrival."""

    def __init__(self, count: int, **options: Any) -> None:
        self.jobs = JobQueue()
        self.scenes = [Scene(jobs=self.jobs, **options) for _ in range(count)]

    def queue(self, *numbers: int) -> None:
        """They ask for a job and get none; only the first of the line is told so by OpenSSL."""
        for number in numbers:
            self.scenes[number].wire.script("handshake", Step.WANT_ASYNC_JOB)
            self.scenes[number].readable()
            assert self.scenes[number].state() is State.QUEUED

    def serve(self) -> None:
        while self.jobs.serve_first():
            pass


def test_a_younger_handshake_does_not_even_ask() -> None:
    crowd = Crowd(2)
    first, second = crowd.scenes
    crowd.queue(0)
    second.readable()
    assert second.state() is State.QUEUED
    assert second.wire.calls == []
    assert second.counters.queued_now == 1
    second.wire.script("handshake", Step.WANT_ASYNC)
    first.wire.script("handshake", Step.DONE)
    crowd.serve()
    assert first.state() is State.OPEN
    assert second.state() is State.PARKED
    assert crowd.jobs.waiting == []


def test_the_second_step_of_an_older_handshake_goes_first() -> None:
    crowd = Crowd(3)
    old = crowd.scenes[0]
    old.readable()
    assert old.state() is State.HANDSHAKING, "it waits for its client"
    crowd.queue(1)
    crowd.scenes[2].readable()
    old.wire.script("handshake", Step.WANT_ASYNC_JOB)
    old.readable()
    assert old.wire.calls == ["handshake"] * 2, "nobody older waits, so it may ask"
    assert crowd.jobs.waiting == [scene.place for scene in crowd.scenes]
    for scene in crowd.scenes:
        scene.wire.script("handshake", Step.DONE)
    crowd.serve()
    assert [scene.state() for scene in crowd.scenes] == [State.OPEN] * 3


def test_a_resume_needs_no_new_job() -> None:
    crowd = Crowd(2)
    old, young = crowd.scenes
    young.wire.data_takes_job = False
    young.park()
    crowd.queue(0)
    young.wire.script("handshake", Step.DONE)
    young.resume()
    assert young.state() is State.OPEN
    assert old.state() is State.QUEUED


def test_only_calls_that_run_in_jobs_wait() -> None:
    crowd = Crowd(3)
    plain, opened, waits = crowd.scenes
    plain.wire.handshake_takes_job = plain.wire.data_takes_job = opened.wire.data_takes_job = False
    transport = opened.open()
    crowd.queue(2)
    plain.open()
    opened.wire.script("read", b"x")
    opened.readable()
    transport.write(b"y")
    transport.close()
    opened.settle()
    assert opened.protocol.data == b"x"
    assert opened.wire.sent == b"y"
    assert opened.wire.calls[-1] == "shutdown"
    assert waits.state() is State.QUEUED


@pytest.mark.parametrize("call", ["read", "write", "shutdown"])
def test_an_open_connection_stands_behind_those_who_wait(call: str) -> None:
    crowd = Crowd(2)
    opened, waits = crowd.scenes
    transport = opened.open()
    crowd.queue(1)
    opened.wire.calls.clear()
    if call == "read":
        opened.readable()
    elif call == "write":
        transport.write(b"x")
    else:
        transport.close()
        opened.settle()
    assert opened.wire.calls == []
    assert opened.state() is (State.CLOSING_QUEUED if call == "shutdown" else State.OPEN_QUEUED)
    assert crowd.jobs.waiting == [waits.place, opened.place]
    waits.wire.script("handshake", Step.WANT_ASYNC)
    crowd.serve()
    assert call in opened.wire.calls
    assert crowd.jobs.waiting == []


def test_closing_keeps_the_place() -> None:
    crowd = Crowd(2)
    opened, waits = crowd.scenes
    transport = opened.open()
    crowd.queue(1)
    transport.write(b"last words")
    transport.close()
    opened.settle()
    assert opened.state() is State.CLOSING_QUEUED
    assert crowd.jobs.waiting == [waits.place, opened.place]
    waits.wire.script("handshake", Step.WANT_ASYNC)
    crowd.serve()
    assert opened.wire.sent == b"last words"
    assert opened.wire.is_half_closed


@pytest.mark.parametrize("leave", ["client", "abort", "deadline"])
def test_whoever_ends_leaves_the_line_at_once(leave: str) -> None:
    crowd = Crowd(2)
    first, second = crowd.scenes
    crowd.queue(0)
    second.readable()
    if leave == "client":
        first.wire.script("peek", Peek.END)
        first.readable()
    elif leave == "abort":
        first.connection.abort(first.now)
    else:
        first.expire()
    assert first.ended()
    assert crowd.jobs.waiting == [second.place]


def test_a_reset_while_an_open_connection_waits_for_a_job() -> None:
    crowd = Crowd(2)
    opened, _ = crowd.scenes
    transport = opened.open()
    crowd.queue(1)
    transport.write(b"x")
    opened.wire.script("peek", Peek.BROKEN)
    opened.readable()
    assert isinstance(opened.lost(), PeerLeftError)


def test_a_stray_resume_does_not_pass_anybody() -> None:
    crowd = Crowd(2)
    _, second = crowd.scenes
    crowd.queue(0)
    second.readable()
    second.resume()
    assert second.wire.calls == []
    assert second.counters.queued_now == 1


# Refused


def full() -> Drain:
    drain = Drain("slow", 1)
    drain.enter()
    return drain


def test_a_new_handshake_is_refused_with_an_alert() -> None:
    scene = Scene(drain=full())
    scene.readable()
    assert scene.state() is State.LINGERING
    assert scene.wire.plain == bytes.fromhex("15 03 03 00 02 02 50")
    assert scene.wire.calls == [], "OpenSSL has no part in it"
    counters = scene.counters
    assert (counters.handshakes_refused, counters.handshakes_failed, counters.handshakes_in_progress) == (1, 0, 0)
    assert counters.lingering_now == 1
    scene.wire.script("discard", False, True)
    scene.readable()
    scene.readable()
    scene.drain.leave()
    assert scene.ended()
    assert counters.handshakes_failed == 0


def test_a_refused_client_that_stays() -> None:
    scene = Scene(drain=full())
    scene.readable()
    assert scene.connection.watch().deadline == scene.now + 5
    scene.expire()
    scene.drain.leave()
    assert scene.ended()


def test_what_has_begun_goes_on() -> None:
    scene = Scene()
    scene.readable()
    for _ in range(3):
        scene.drain.enter()
    assert scene.drain.is_full
    scene.open()
    scene.wire.script("read", b"x")
    scene.readable()
    assert scene.protocol.data == b"x"


def test_a_client_that_comes_while_it_is_full_may_speak_later() -> None:
    drain = full()
    scene = Scene(drain=drain)
    drain.leave()
    scene.open()
    assert scene.state() is State.OPEN


def test_a_draining_job_is_counted_for_its_engine() -> None:
    scene = Scene()
    scene.park()
    scene.wire.script("close", False)
    scene.connection.abort(scene.now)
    assert (scene.drain.now, scene.counters.draining_max, scene.counters.drained) == (1, 1, 0)
    scene.resume()
    assert (scene.drain.now, scene.counters.draining_max, scene.counters.drained) == (0, 1, 1)
    assert scene.ended()


@pytest.mark.parametrize("found", [Peek.LAST_BYTES, Peek.END, Peek.BROKEN])
def test_a_client_that_gave_up_is_dropped_when_its_turn_comes(found: Peek) -> None:
    """Its unread ClientHello hides that it left; a job for it would be taken from those who still wait."""
    crowd = Crowd(3)
    first, gone, patient = crowd.scenes
    crowd.queue(0)
    gone.wire.script("peek", Peek.BYTES, found)
    for scene in (gone, patient):
        scene.readable()
    gone.readable()
    assert gone.state() is State.QUEUED
    assert not gone.connection.watch().read
    for scene in (first, patient):
        scene.wire.script("handshake", Step.WANT_ASYNC)
    crowd.serve()
    gone.settle()
    assert gone.ended()
    assert gone.wire.calls == ["close"]
    assert patient.state() is State.PARKED
