"""Reads, writes and goodbyes that pause: what the protocol, the client and the clock may do meanwhile.

`helpers_core.FakeWire` fails a test that repeats a paused call with another buffer, or calls anything else.
"""

from __future__ import annotations

import pytest
from helpers_core import Scene, Taken

from tlsserver.errors import ConnectionTimeoutError, PeerLeftError
from tlsserver.state import State
from tlsserver.wire import Peek, Step

KIB = 1024
NO_FDS: tuple[int, ...] = ()


def paused_write(scene: Scene) -> None:
    """The first write of a protocol pauses."""
    transport = scene.open()
    scene.wire.script("write", Step.WANT_ASYNC)
    transport.write(b"first")
    assert scene.state() is State.OPEN_PARKED


def paused_read(scene: Scene) -> None:
    scene.open()
    scene.wire.script("read", Step.WANT_ASYNC)
    scene.readable()
    assert scene.state() is State.OPEN_PARKED


def paused_goodbye(scene: Scene) -> None:
    transport = scene.open()
    scene.wire.script("shutdown", Step.WANT_ASYNC)
    transport.close()
    scene.settle()
    assert scene.state() is State.CLOSING_PARKED


# The buffer


def test_a_paused_write_keeps_its_buffer_whatever_is_written_behind_it() -> None:
    scene = Scene()
    paused_write(scene)
    assert scene.protocol.transport is not None
    for number in range(50):
        scene.protocol.transport.write(b"%03d" % number)
        scene.wire.script("write", Step.WANT_ASYNC)
        scene.resume()
    scene.wire.script("write", Taken(2), Step.WANT_ASYNC, Step.WANT_ASYNC, Step.DONE)
    for _ in range(3):
        scene.resume()
    assert scene.wire.sent == b"first" + b"".join(b"%03d" % number for number in range(50))


def test_a_paused_write_that_then_wants_the_socket_offers_the_same() -> None:
    scene = Scene()
    paused_write(scene)
    assert scene.protocol.transport is not None
    scene.protocol.transport.write(b" second")
    scene.wire.script("write", Step.WANT_WRITE, Step.WANT_ASYNC, Step.DONE)
    scene.resume()
    assert scene.connection.watch().write
    scene.writable()
    assert scene.state() is State.OPEN_PARKED
    scene.resume()
    assert scene.wire.sent == b"first second"


def test_closing_while_a_write_is_paused_sends_all_then_says_goodbye() -> None:
    scene = Scene()
    paused_write(scene)
    assert scene.protocol.transport is not None
    scene.protocol.transport.write(b" last")
    scene.protocol.transport.close()
    scene.protocol.transport.write(b" too late")
    scene.settle()
    scene.wire.script("write", Step.WANT_ASYNC)
    scene.resume()
    assert scene.state() is State.CLOSING_PARKED
    scene.wire.script("shutdown", Step.CLOSED)
    scene.resume()
    assert scene.wire.sent == b"first last"
    assert scene.lost() is None


@pytest.mark.parametrize("pause", [paused_read, paused_write, paused_goodbye])
def test_abort_while_a_job_that_cannot_be_cancelled_is_paused(pause: object) -> None:
    scene = Scene()
    pause(scene)  # type: ignore[operator]
    scene.wire.script("close", False, False)
    scene.connection.abort(scene.now)
    scene.settle()
    assert scene.state() is State.DRAINING
    assert scene.connection.buffer_size == 0
    assert scene.protocol.names[-1] == "connection_lost", "the protocol does not wait for the job"
    calls = [call for call in scene.wire.calls if call != "close"]
    scene.resume()
    scene.resume()
    assert scene.lost() is None
    assert [call for call in scene.wire.calls if call != "close"] == calls
    assert scene.counters.drained == 1


# Reading


def test_a_paused_read_whose_protocol_stopped_reading_and_closed() -> None:
    scene = Scene()
    paused_read(scene)
    assert scene.protocol.transport is not None
    scene.protocol.transport.pause_reading()
    scene.wire.script("read", b"held")
    scene.resume()
    scene.protocol.transport.close()
    scene.settle()
    assert scene.protocol.data == b""
    assert scene.wire.is_half_closed
    scene.wire.script("read", Step.CLOSED)
    scene.readable()
    assert scene.lost() is None


def test_held_data_is_not_lost_when_the_peer_leaves_next() -> None:
    scene = Scene()
    paused_read(scene)
    assert scene.protocol.transport is not None
    scene.protocol.transport.pause_reading()
    scene.wire.script("read", b"held", Step.CLOSED)
    scene.resume()
    scene.protocol.transport.resume_reading()
    scene.turn()
    assert scene.protocol.data == b"held"
    assert "eof_received" in scene.protocol.names


def test_a_resumed_read_keeps_to_its_budget() -> None:
    scene = Scene(read_budget=20 * KIB)
    paused_read(scene)
    scene.wire.script("read", *[bytes(16 * KIB)] * 4)
    scene.resume()
    assert len(scene.protocol.data) == 32 * KIB
    scene.turn()
    assert len(scene.protocol.data) == 64 * KIB


def test_each_record_may_pause_anew() -> None:
    scene = Scene()
    paused_read(scene)
    for letter in (b"a", b"b", b"c"):
        scene.wire.script("read", letter, Step.WANT_ASYNC)
        scene.resume()
    assert scene.protocol.data == b"abc"
    assert scene.connection.park.parks == 3
    assert scene.state() is State.OPEN_PARKED


def test_an_answer_written_in_data_received_may_pause_within_a_resumed_read() -> None:
    scene = Scene()
    paused_read(scene)
    scene.protocol.reactions["data_received"] = scene.echo
    scene.wire.script("read", b"one", b"two")
    scene.wire.script("write", Step.WANT_ASYNC, Step.DONE, Step.DONE)
    scene.resume()
    assert scene.state() is State.OPEN_PARKED, "the write's pause ends the reading"
    scene.resume()
    scene.turn()
    assert scene.wire.sent == b"onetwo"


def test_a_resumed_write_keeps_to_its_budget() -> None:
    scene = Scene(write_budget=32 * KIB)
    transport = scene.open()
    scene.wire.script("write", Step.WANT_ASYNC, *[Taken(16 * KIB)] * 4)
    transport.write(bytes(64 * KIB))
    scene.resume()
    assert len(scene.wire.sent) == 32 * KIB
    scene.writable()
    assert len(scene.wire.sent) == 64 * KIB


# The client and the clock


@pytest.mark.parametrize("pause", [paused_read, paused_write, paused_goodbye])
def test_a_reset_ends_it(pause: object) -> None:
    scene = Scene()
    pause(scene)  # type: ignore[operator]
    scene.wire.script("peek", Peek.BROKEN)
    scene.readable()
    assert isinstance(scene.lost(), PeerLeftError)


@pytest.mark.parametrize("pause", [paused_read, paused_write, paused_goodbye])
def test_idling_ends_it(pause: object) -> None:
    scene = Scene(timeout_idle=7)
    pause(scene)  # type: ignore[operator]
    scene.expire()
    assert isinstance(scene.lost(), ConnectionTimeoutError)


@pytest.mark.parametrize("pause", [paused_read, paused_write, paused_goodbye])
def test_without_fds_it_is_polled(pause: object) -> None:
    scene = Scene()
    scene.wire.fds = NO_FDS
    pause(scene)  # type: ignore[operator]
    call = scene.wire.calls[-1]
    delays = []
    for _ in range(8):
        before = scene.now
        scene.wire.script(call, Step.WANT_ASYNC)
        scene.expire()
        delays.append(round(scene.now - before, 6))
    assert delays == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
    scene.expire()
    assert scene.state() in (State.OPEN, State.CLOSING)


def test_draining_without_fds_is_polled_with_back_off() -> None:
    scene = Scene()
    scene.wire.fds = NO_FDS
    paused_read(scene)
    scene.wire.script("close", *[False] * 9)
    scene.connection.abort(scene.now)
    delays = []
    while scene.state() is State.DRAINING:
        before = scene.now
        scene.expire()
        delays.append(round(scene.now - before, 6))
    # The pause itself has asked for the first poll, after 1 ms.
    assert delays == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.05, 0.05]
    assert scene.lost() is None


def test_a_stuck_fd_is_left_alone_while_draining_too() -> None:
    scene = Scene()
    paused_write(scene)
    scene.wire.script("close", *[False] * 40)
    scene.connection.abort(scene.now)
    resumes = 0
    while scene.connection.watch().wait_fds:
        scene.resume()
        resumes += 1
    assert resumes < 20
    scene.expire()
    assert scene.connection.watch().wait_fds, "first they are watched again"
    while scene.state() is State.DRAINING:
        if scene.connection.watch().wait_fds:
            scene.resume()
        else:
            scene.expire()
    assert scene.lost() is None
