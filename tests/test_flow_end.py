"""The end of an open connection: from our side, from the peer's, by idling, by protocols that misbehave."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from helpers_core import Scene

from tlsserver.errors import ConnectionTimeoutError, LocalTLSError, PeerLeftError, TruncatedError
from tlsserver.state import State
from tlsserver.watch import Watch
from tlsserver.wire import Step

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024


# Closing, our side first


def test_close_flushes_and_says_goodbye_and_waits() -> None:
    scene = Scene(timeout_shutdown=2)
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE)
    transport.write(b"rest")
    transport.close()
    transport.write(b"too late")
    transport.close()
    assert transport.is_closing()
    scene.settle()
    assert scene.wire.sent == b""
    scene.writable()
    assert scene.wire.sent == b"rest"
    assert scene.wire.calls[-2:] == ["write", "shutdown"]
    assert scene.wire.is_half_closed
    assert scene.connection.watch() == Watch(read=True, deadline=scene.now + 2)
    scene.wire.script("read", b"ignored", Step.CLOSED)
    scene.readable()
    assert scene.lost() is None
    assert scene.protocol.names == ["connection_made", "connection_lost"]


@pytest.mark.parametrize("last", [Step.EOF, Step.FAILED])
def test_after_our_goodbye_it_does_not_matter_how_the_peer_goes(last: Step) -> None:
    scene = Scene()
    scene.open().close()
    scene.settle()
    scene.wire.script("read", last)
    scene.readable()
    assert scene.lost() is None


def test_a_peer_that_does_not_answer_is_left() -> None:
    scene = Scene(timeout_shutdown=2)
    scene.open().close()
    scene.settle()
    scene.expire()
    assert scene.lost() is None


def test_a_peer_that_sends_on_for_ever_is_left_too() -> None:
    scene = Scene(timeout_shutdown=2, read_budget=KIB)
    scene.open().close()
    scene.settle()
    start = scene.now
    while scene.connection.state is State.CLOSING:
        scene.now += 0.5
        scene.wire.script("read", bytes(KIB))
        scene.readable()
        scene.connection.expire(scene.now)
        scene.settle()
    assert scene.now - start == 2
    assert scene.lost() is None


def test_close_inside_data_received() -> None:
    scene = Scene()
    transport = scene.open()
    scene.protocol.reactions["data_received"] = lambda _data: transport.close()
    scene.wire.script("read", b"a", b"b", Step.CLOSED)
    scene.wire.script("shutdown", Step.CLOSED)
    scene.readable()
    assert scene.protocol.data == b"a"
    assert scene.lost() is None


@pytest.mark.parametrize("wants", [Step.WANT_READ, Step.WANT_WRITE])
def test_a_goodbye_that_does_not_fit(wants: Step) -> None:
    scene = Scene()
    scene.wire.script("shutdown", wants)
    scene.open().close()
    scene.settle()
    assert not scene.wire.is_half_closed
    assert scene.connection.watch()[:2] == (True, wants is Step.WANT_WRITE)
    (scene.writable if wants is Step.WANT_WRITE else scene.readable)()
    assert scene.wire.is_half_closed


# Closing, the peer first


def test_data_that_comes_with_the_goodbye_is_not_lost() -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", b"last words", Step.CLOSED)
    scene.wire.script("shutdown", Step.CLOSED)
    scene.readable()
    assert scene.protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert scene.lost() is None


def test_what_was_buffered_follows_the_peers_goodbye() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE, Step.WANT_WRITE)
    transport.write(b"answer")
    scene.wire.script("read", Step.CLOSED)
    scene.readable()
    assert scene.connection.watch()[:2] == (False, True)
    scene.wire.script("shutdown", Step.CLOSED)
    scene.writable()
    scene.writable()
    assert scene.wire.sent == b"answer"
    assert scene.lost() is None


def test_a_protocol_may_keep_its_half_open() -> None:
    scene = Scene()
    transport = scene.open()
    scene.protocol.reactions["eof_received"] = lambda: True
    scene.wire.script("read", Step.CLOSED)
    scene.readable()
    assert not transport.is_closing()
    assert scene.connection.watch() == Watch(deadline=scene.now + 300)
    transport.write(b"late answer")
    transport.close()
    scene.wire.script("shutdown", Step.CLOSED)
    scene.settle()
    assert scene.wire.sent == b"late answer"
    assert scene.lost() is None


def test_truncation_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.open()
    scene.wire.script("read", b"half a", Step.EOF)
    with caplog.at_level(logging.DEBUG):
        scene.readable()
    assert scene.protocol.names == ["connection_made", "data_received", "connection_lost"]
    assert isinstance(scene.lost(), TruncatedError)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


@pytest.mark.parametrize("call", ["read", "write"])
def test_an_error_is_handed_over(call: str) -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.error = LocalTLSError("scripted")
    scene.wire.script(call, Step.FAILED)
    if call == "write":
        transport.write(b"x")
        assert "connection_lost" not in scene.protocol.names, "not inside the protocol's own call"
        scene.settle()
    else:
        scene.readable()
    assert scene.lost() is scene.wire.error


def test_a_client_that_leaves_before_all_is_sent() -> None:
    scene = Scene()
    transport = scene.open()
    scene.wire.script("write", Step.EOF)
    transport.write(b"x")
    scene.settle()
    assert isinstance(scene.lost(), PeerLeftError)


# Idling


def test_idling_counts_from_the_last_byte_either_way() -> None:
    scene = Scene(timeout_idle=60)
    transport = scene.open()
    scene.now += 50
    scene.wire.script("read", b"x")
    scene.readable()
    assert scene.connection.watch().deadline == scene.now + 60
    scene.now += 50
    transport.write(b"x")
    assert scene.connection.watch().deadline == scene.now + 60
    scene.expire()
    assert isinstance(scene.lost(), ConnectionTimeoutError)


def test_a_client_that_reads_slowly_is_not_idle() -> None:
    scene = Scene(timeout_idle=60)
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE, Step.WANT_WRITE)
    transport.write(b"x")
    scene.now += 50
    scene.writable()
    assert scene.connection.watch().deadline == scene.now + 60


def test_no_idle_limit() -> None:
    scene = Scene(timeout_idle=None)
    scene.open()
    assert scene.connection.watch().deadline is None
    scene.connection.close()
    scene.settle()
    assert scene.connection.watch().deadline is not None


def test_a_client_that_takes_nothing_while_we_close() -> None:
    scene = Scene(timeout_idle=60)
    transport = scene.open()
    scene.wire.script("write", Step.WANT_WRITE)
    transport.write(b"x")
    transport.close()
    scene.settle()
    scene.expire()
    assert isinstance(scene.lost(), ConnectionTimeoutError)


# Protocols that misbehave


def raiser(error: BaseException) -> Callable[..., None]:
    def react(*_: object) -> None:
        raise error

    return react


@pytest.mark.parametrize(
    "name", ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"]
)
def test_a_protocol_that_raises_ends_its_connection(name: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(write_buffer_high=0, write_buffer_low=0)
    error = RuntimeError("on purpose")
    scene.protocol.reactions["data_received"] = scene.echo
    scene.protocol.reactions[name] = raiser(error)
    scene.wire.script("read", b"x", Step.CLOSED)
    scene.wire.script("write", Step.WANT_WRITE)
    scene.open()
    if name == "resume_writing":
        scene.writable()
    assert scene.lost() is error
    assert scene.protocol.names[-2:] == [name, "connection_lost"]
    assert name in caplog.text
    assert caplog.records[0].exc_info is not None


def test_a_protocol_that_raises_in_connection_lost(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.protocol.reactions["connection_lost"] = raiser(RuntimeError("on purpose"))
    scene.open().abort()
    scene.settle()
    scene.settle()
    assert scene.lost() is None
    assert "on purpose" in caplog.text


def test_an_interrupt_in_a_protocol_passes() -> None:
    scene = Scene()
    scene.open()
    scene.protocol.reactions["data_received"] = raiser(KeyboardInterrupt())
    scene.wire.script("read", b"x")
    with pytest.raises(KeyboardInterrupt):
        scene.readable()


def test_abort_inside_data_received_reads_no_more() -> None:
    scene = Scene()
    transport = scene.open()
    scene.protocol.reactions["data_received"] = lambda _data: transport.abort()
    scene.wire.script("read", b"a", b"b")
    scene.connection.readable(scene.now)
    assert scene.protocol.names == ["connection_made", "data_received"]
    scene.settle()
    assert scene.lost() is None
