"""A connection between a scripted wire and a protocol that remembers: handshake, parking, and the end."""

from __future__ import annotations

import logging

import pytest
from helpers_core import INFO, Scene

from tlsserver.errors import (
    ConnectionTimeoutError,
    EngineError,
    HandshakeError,
    IllegalTransitionError,
    PeerLeftError,
    PlainHTTPError,
)
from tlsserver.state import Event, State
from tlsserver.watch import Watch
from tlsserver.wire import Step

# Handshake


def test_the_handshake_waits_for_what_openssl_wants() -> None:
    scene = Scene()
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 10)
    scene.wire.script("handshake", Step.WANT_READ, Step.WANT_WRITE, Step.WANT_READ, Step.DONE)
    scene.readable()
    assert scene.connection.watch()[:2] == (True, False)
    scene.readable()
    assert scene.connection.watch()[:2] == (False, True)
    scene.writable()
    assert scene.connection.watch()[:2] == (True, False)
    assert scene.protocol.events == []
    scene.now += 3
    scene.readable()
    assert scene.protocol.names == ["connection_made"]
    assert scene.state() is State.OPEN
    assert scene.connection.tls == INFO
    assert scene.counters.handshakes_completed == 1
    assert scene.counters.handshake_seconds.snapshot().sum == pytest.approx(3)


def test_data_behind_the_handshake_is_read_at_once() -> None:
    """It may lie in OpenSSL, where no selector sees it."""
    scene = Scene()
    scene.wire.script("read", b"early")
    scene.open()
    assert scene.protocol.events == [("connection_made",), ("data_received", b"early")]


@pytest.mark.parametrize(("step", "reason"), [(Step.EOF, "closed"), (Step.CLOSED, "closed"), (Step.FAILED, "scripted")])
def test_a_failed_handshake_is_one_line(step: Step, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.wire.script("handshake", step)
    with caplog.at_level(logging.INFO):
        scene.readable()
    assert scene.ended()
    assert scene.protocol.events == []
    assert scene.counters.handshakes_failed == 1
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    assert record.getMessage().startswith("handshake with a test failed: ")
    assert reason in record.getMessage()


def test_the_handshakes_deadline_counts_from_accept() -> None:
    scene = Scene(timeout_handshake=5)
    start = scene.now
    scene.now += 4
    scene.wire.script("handshake", Step.WANT_READ)
    scene.readable()
    assert scene.connection.watch().deadline == start + 5
    scene.expire()
    assert scene.ended()
    assert scene.counters.handshakes_failed == 1


def test_an_early_wake_up_is_no_timeout() -> None:
    scene = Scene()
    scene.connection.expire(scene.now)
    assert scene.state() is State.HANDSHAKING


def test_a_protocol_factory_that_fails_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.connection.audience._factory = lambda: 1 / 0  # type: ignore[assignment, return-value]
    scene.wire.script("handshake", Step.DONE)
    scene.readable()
    assert scene.ended()
    assert "protocol factory" in caplog.text
    assert caplog.records[0].exc_info is not None


# Plain HTTP


def plain(scene: Scene) -> None:
    scene.wire.error = PlainHTTPError("plain HTTP was sent to the TLS port")
    scene.wire.script("handshake", Step.FAILED)
    scene.readable()


def test_plain_http_is_answered_and_the_client_may_read_it() -> None:
    scene = Scene()
    plain(scene)
    head, _, body = scene.wire.plain.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert body.count(b"\n") == 1
    assert b"https://" in body
    assert scene.counters.handshakes_failed == 1
    assert scene.counters.handshakes_in_progress == 0
    assert not scene.wire.is_closed
    scene.readable()
    assert scene.state() is State.LINGERING
    scene.wire.script("discard", True)
    scene.readable()
    assert scene.ended()


def test_a_plain_client_that_never_leaves_is_left() -> None:
    scene = Scene(timeout_shutdown=2)
    plain(scene)
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 2)
    scene.expire()
    assert scene.ended()
    assert scene.counters.handshakes_failed == 1


# The end


def test_nothing_happens_after_the_end() -> None:
    scene = Scene()
    transport = scene.open()
    transport.abort()
    scene.settle()
    events, calls = list(scene.protocol.events), list(scene.wire.calls)
    transport.write(b"x")
    transport.close()
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()
    for use in (
        *(scene.connection.readable, scene.connection.writable, scene.connection.resume, scene.connection.turn),
        *(scene.connection.expire, scene.connection.settle, scene.connection.wind_down),
    ):
        use(scene.now + 1e6)
    assert scene.protocol.events == events == [("connection_made",), ("connection_lost", None)]
    assert scene.wire.calls == calls
    assert scene.ended()


def test_an_illegal_event_changes_nothing() -> None:
    scene = Scene()
    before = scene.connection.state, scene.gauges(), scene.counters.jobs_ended
    with pytest.raises(IllegalTransitionError):
        scene.connection._life.go(Event.CLOSE)
    assert (scene.connection.state, scene.gauges(), scene.counters.jobs_ended) == before


@pytest.mark.parametrize("parked", [False, True])
def test_winding_down_lets_a_handshake_finish(parked: bool) -> None:
    scene = Scene()
    if parked:
        scene.park()
    scene.connection.wind_down(scene.now)
    scene.settle()
    assert scene.state() is (State.PARKED if parked else State.HANDSHAKING)
    scene.wire.script("read", b"request")
    scene.wire.script("handshake", Step.DONE)
    (scene.resume if parked else scene.readable)()
    assert scene.protocol.names == ["connection_made", "data_received"]
    assert scene.state() is State.CLOSING
    assert scene.wire.is_half_closed


def test_winding_down_asks_a_protocol_that_can_finish() -> None:
    scene = Scene()
    scene.protocol.close_when_idle = lambda: scene.protocol._record("close_when_idle")  # type: ignore[attr-defined]
    scene.open()
    scene.connection.wind_down(scene.now)
    scene.settle()
    assert scene.protocol.names == ["connection_made", "close_when_idle"]
    assert scene.state() is State.OPEN


def test_errors_say_whose_fault() -> None:
    assert {error.fault for error in (HandshakeError, PeerLeftError, ConnectionTimeoutError)} == {"peer"}
    assert EngineError.fault == "engine"
