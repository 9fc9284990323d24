"""A connection whose handshake waits for the answer to a question: no fds, no polls, one question."""

from __future__ import annotations

import pytest
from helpers_core import Scene

from tlsserver.errors import ConnectionTimeoutError, PeerLeftError
from tlsserver.parking import Park
from tlsserver.state import State
from tlsserver.watch import Watch
from tlsserver.wire import Peek, Step


def asked() -> Scene:
    scene = Scene()
    scene.wire.script("handshake", Step.WANT_ANSWER)
    scene.readable()
    return scene


def test_parked_without_anything_to_wait_for_but_the_client_and_the_deadline() -> None:
    scene = asked()
    assert scene.state() is State.PARKED
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 10)
    assert scene.wire.calls == ["handshake", "ask"]
    scene.now += 0.5
    scene.wire.script("handshake", Step.DONE)
    scene.wire.answer()
    assert scene.state() is State.OPEN
    assert (scene.connection.park, scene.counters.handshakes_parked) == (Park(1, 0.5), 1)


def test_a_resume_for_nothing_asks_nothing() -> None:
    scene = asked()
    scene.wire.script("handshake", Step.WANT_ANSWER, Step.WANT_ANSWER)
    scene.resume()
    scene.resume()
    assert scene.wire.calls.count("ask") == 1
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 10)


def test_an_answer_then_an_operation() -> None:
    scene = asked()
    scene.wire.script("handshake", Step.WANT_ASYNC)
    scene.wire.answer()
    assert scene.state() is State.PARKED
    assert scene.connection.watch().wait_fds
    scene.wire.script("handshake", Step.DONE)
    scene.resume()
    assert scene.state() is State.OPEN
    assert scene.connection.park.parks == 2


def test_no_job_for_the_answered_handshake() -> None:
    """It stands in the line, and goes on when its turn comes."""
    scene = asked()
    scene.wire.script("handshake", Step.WANT_ASYNC_JOB)
    scene.wire.answer()
    assert scene.state() is State.QUEUED
    scene.wire.script("handshake", Step.DONE)
    scene.jobs.serve_first()
    assert scene.state() is State.OPEN


@pytest.mark.parametrize("found", [Peek.END, Peek.BROKEN, Peek.LAST_BYTES])
def test_the_client_leaves(found: Peek) -> None:
    scene = asked()
    scene.wire.script("peek", found)
    scene.readable()
    assert scene.ended()
    assert isinstance(scene.connection._error, PeerLeftError)
    assert "while its question was open" in str(scene.connection._error)


def test_bytes_are_not_looked_at_again_and_again() -> None:
    scene = asked()
    scene.wire.script("peek", Peek.BYTES)
    scene.readable()
    assert scene.connection.watch() == Watch(deadline=scene.now + 10)


def test_the_deadline() -> None:
    scene = asked()
    scene.expire()
    assert scene.ended()
    assert isinstance(scene.connection._error, ConnectionTimeoutError)
    assert "on_client_hello has not answered" in str(scene.connection._error)
