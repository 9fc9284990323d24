"""The data of an open connection: budgets, back-pressure, closing from both sides, and protocols that misbehave."""

from __future__ import annotations

import pytest
from helpers_core import Scene, Taken

from tlsserver.errors import PeerLeftError
from tlsserver.state import State
from tlsserver.watch import Watch
from tlsserver.wire import Peek, Step

KIB = 1024


# Reading


def test_reads_until_the_socket_is_empty() -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", b"a", b"b", b"c")
    scene.readable()
    assert scene.protocol.data == b"abc"
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 300)
    assert scene.counters.bytes_received == 3


def test_a_budget_for_each_turn() -> None:
    """What is left may lie in OpenSSL, so the next turn comes by itself."""
    scene = Scene(read_budget=20 * KIB)
    scene.open()
    scene.wire.script("read", *[bytes(16 * KIB)] * 4)
    scene.readable()
    assert len(scene.protocol.data) == 32 * KIB
    assert scene.connection.watch().again
    scene.turn()
    assert len(scene.protocol.data) == 64 * KIB
    scene.turn()
    assert not scene.connection.watch().again


def test_a_read_that_wants_to_write() -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", Step.WANT_WRITE)
    scene.readable()
    assert scene.connection.watch()[:2] == (False, True)
    scene.wire.script("read", b"x")
    scene.writable()
    assert scene.protocol.data == b"x"
    assert scene.connection.watch()[:2] == (True, False)


def test_pause_and_resume_reading() -> None:
    scene = Scene()
    transport = scene.open()
    scene.protocol.reactions["data_received"] = lambda _data: transport.pause_reading()
    scene.wire.script("read", b"a", b"b")
    scene.readable()
    assert scene.protocol.data == b"a"
    assert not transport.is_reading()
    assert not scene.connection.watch().read
    scene.protocol.reactions.clear()
    transport.resume_reading()
    transport.resume_reading()
    scene.settle()
    assert scene.protocol.data == b"a", "not inside the protocol's own call"
    scene.turn()
    assert scene.protocol.data == b"ab"
    assert scene.connection.watch().read


def test_pausing_in_connection_made_holds_back_the_first_byte() -> None:
    scene = Scene()
    scene.protocol.reactions["connection_made"] = scene.stop_reading
    scene.wire.script("read", b"a")
    scene.open()
    assert scene.protocol.data == b""
    assert not scene.connection.watch().again


# Writing


def test_writes_at_once_and_buffers_the_rest() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Taken(3), Step.WANT_WRITE)
    transport.write(b"abcdef")
    assert scene.wire.sent == b"abc"
    assert transport.get_write_buffer_size() == 3
    transport.write(b"ghi")
    scene.settle()
    assert scene.connection.watch()[:2] == (True, True)
    scene.writable()
    assert scene.wire.sent == b"abcdefghi"
    assert scene.connection.watch()[:2] == (True, False)
    assert scene.counters.bytes_sent == 9


def test_a_write_that_wants_to_read() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_READ)
    transport.write(b"x")
    transport.pause_reading()
    assert scene.connection.watch()[:2] == (True, False)
    scene.readable()
    assert scene.wire.sent == b"x"
    assert scene.connection.watch()[:2] == (False, False)


def test_the_callers_buffer_may_change() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE)
    data = bytearray(b"before")
    transport.write(data)
    data[:] = b"after!"
    transport.write(memoryview(b"-more"))
    scene.writable()
    assert scene.wire.sent == b"before-more"


def test_small_writes_travel_together() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE)
    transport.write(b"first")
    for number in range(100):
        transport.write(b"%04d" % number)
    scene.wire.calls.clear()
    scene.writable()
    assert scene.wire.calls.count("write") == 2
    assert len(scene.wire.sent) == 5 + 400
    scene.wire.calls.clear()
    transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
    assert scene.wire.calls.count("write") == 1
    transport.write(b"")
    transport.writelines([])
    assert scene.wire.calls.count("write") == 1


def test_a_write_budget_for_each_turn() -> None:
    scene = Scene(write_budget=32 * KIB)
    transport = scene.open()
    scene.wire.script("write", *[Taken(16 * KIB)] * 4)
    transport.write(bytes(64 * KIB))
    assert len(scene.wire.sent) == 32 * KIB
    assert scene.connection.watch().write
    scene.writable()
    assert len(scene.wire.sent) == 64 * KIB
    assert not scene.connection.watch().write


def test_back_pressure_in_asyncios_manner() -> None:
    scene = Scene()
    transport = scene.open()
    transport.set_write_buffer_limits(high=100, low=10)
    assert transport.get_write_buffer_limits() == (10, 100)
    scene.wire.script("write", Step.WANT_WRITE)
    transport.write(bytes(100))
    assert scene.protocol.names == ["connection_made"]
    transport.write(b"x")
    transport.write(b"x")
    assert scene.protocol.names[1:] == ["pause_writing"]
    scene.wire.script("write", Taken(91), Step.WANT_WRITE)
    scene.writable()
    assert scene.protocol.names[1:] == ["pause_writing"]
    scene.wire.script("write", Taken(1), Step.WANT_WRITE)
    scene.writable()
    assert scene.protocol.names[1:] == ["pause_writing", "resume_writing"]


def test_a_protocol_may_write_on_in_resume_writing() -> None:
    scene = Scene(write_buffer_high=10, write_buffer_low=0)
    transport = scene.open()
    rest = [b"b" * 20, b"c" * 20, b""]
    scene.protocol.reactions["resume_writing"] = lambda: transport.write(rest.pop(0))
    scene.wire.script("write", Step.WANT_WRITE)
    transport.write(b"a" * 20)
    for _ in range(3):
        scene.wire.script("write", Step.DONE, Step.WANT_WRITE)
        scene.writable()
    assert bytes(scene.wire.sent) == b"a" * 20 + b"b" * 20 + b"c" * 20
    assert scene.protocol.names[1:] == ["pause_writing", "resume_writing"] * 3


def test_limits_that_cannot_be() -> None:
    transport = Scene().open()
    with pytest.raises(ValueError, match="at least low"):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.set_write_buffer_limits(low=5)
    assert transport.get_write_buffer_limits() == (5, 20)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)


# Reads and writes that pause (an engine that offloads ciphers)


def test_a_paused_read_holds_back_writes() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("read", Step.WANT_ASYNC)
    scene.readable()
    assert scene.connection.state is State.OPEN_PARKED
    transport.write(b"answer")
    assert scene.wire.sent == b""
    scene.wire.script("read", b"data")
    scene.resume()
    assert scene.protocol.data == b"data"
    assert scene.wire.sent == b"answer"
    assert scene.connection.watch().again


def test_a_paused_write_is_repeated_with_the_same_buffer() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_ASYNC, Step.WANT_ASYNC, Step.DONE)
    transport.write(b"one")
    transport.write(b"two")
    scene.resume()
    scene.resume()
    assert scene.wire.sent == b"onetwo"
    assert scene.connection.state is State.OPEN


def test_data_of_a_paused_read_waits_for_a_protocol_that_stopped_reading() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("read", Step.WANT_ASYNC)
    scene.readable()
    transport.pause_reading()
    scene.wire.script("read", b"held")
    scene.resume()
    assert scene.protocol.data == b""
    transport.resume_reading()
    scene.turn()
    assert scene.protocol.data == b"held"


def test_close_while_a_read_is_paused() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("read", Step.WANT_ASYNC)
    scene.readable()
    transport.write(b"rest")
    transport.close()
    scene.settle()
    assert scene.connection.state is State.CLOSING_PARKED
    scene.wire.script("read", b"ignored")
    scene.wire.script("shutdown", Step.WANT_ASYNC, Step.CLOSED)
    scene.resume()
    assert scene.wire.sent == b"rest"
    scene.resume()
    assert scene.lost() is None


def test_no_job_for_a_read() -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", Step.WANT_ASYNC_JOB)
    scene.readable()
    assert scene.jobs.waiting == [scene.place]
    scene.wire.script("read", b"x")
    scene.resume()
    assert scene.protocol.data == b"x"


def test_a_half_closed_client_waits_for_its_answer_while_we_are_parked() -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", Step.WANT_ASYNC)
    scene.readable()
    scene.wire.script("peek", Peek.END)
    scene.readable()
    assert scene.connection.state is State.OPEN_PARKED
    assert not scene.connection.watch().read


def test_a_reset_while_a_write_is_paused() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_ASYNC)
    transport.write(b"x")
    scene.wire.script("peek", Peek.BROKEN)
    scene.readable()
    assert isinstance(scene.lost(), PeerLeftError)
