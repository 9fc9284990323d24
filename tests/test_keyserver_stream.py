"""A connection without TLS on the selector loop: what a protocol is told, and the ends that it can have."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tlsserver.reactor import Reactor
from tlsserver.signers.keyserver_stream import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder(asyncio.Protocol):
    """Keeps what it is told, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.told: list[Any] = []
        self._fails = fails

    def _tell(self, name: str, *what: Any) -> None:
        self.told.append((name, *what))
        if name == self._fails:
            raise ZeroDivisionError

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._tell("made")

    def data_received(self, data: bytes) -> None:
        self._tell("data", data)

    def eof_received(self) -> bool:
        self._tell("eof")
        return True

    def pause_writing(self) -> None:
        self._tell("pause")

    def resume_writing(self) -> None:
        self._tell("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell("lost", exc)


class Stream:
    """A transport whose loop the test turns."""

    def __init__(self, fails: str = "") -> None:
        self.reactor = Reactor()
        ours, self.far = socket.socketpair()
        ours.setblocking(False)
        self.closed: list[StreamTransport] = []
        self.protocol = Recorder(fails)
        self.transport = StreamTransport(
            self.reactor, ours, self.protocol, facts={"client": "me"}, on_closed=self.closed.append
        )

    def turn(self) -> list[Any]:
        self.reactor.run_turn(0.05)
        return self.protocol.told

    def turn_until(self, condition: Any) -> None:
        for _ in range(1000):
            if condition():
                return
            self.turn()
        pytest.fail("it never came to that")

    def read(self, size: int) -> bytes:
        got = b""
        self.far.setblocking(False)
        while len(got) < size:
            got += self._read_some(size - len(got))
        return got

    def _read_some(self, size: int) -> bytes:
        try:
            return self.far.recv(size)
        except BlockingIOError:
            self.turn()
            return b""


@pytest.fixture
def stream() -> Iterator[Stream]:
    made_stream = Stream()
    yield made_stream
    made_stream.transport.abort()
    made_stream.turn()
    made_stream.far.close()
    made_stream.reactor.close()


def test_reading_and_writing(stream: Stream) -> None:
    stream.far.sendall(b"hello")
    assert stream.turn() == [("made",), ("data", b"hello")]
    stream.transport.write(b"")
    stream.transport.write(memoryview(b"world"))
    assert stream.far.recv(10) == b"world"
    assert stream.transport.get_extra_info("client") == "me"
    assert stream.transport.get_protocol() is stream.protocol


def test_pausing_reading(stream: Stream) -> None:
    stream.transport.pause_reading()
    stream.transport.pause_reading()
    stream.far.sendall(b"later")
    assert stream.turn() == [("made",)]
    assert not stream.transport.is_reading()
    stream.transport.resume_reading()
    assert stream.turn()[1:] == [("data", b"later")]


def test_peer_that_reads_slowly(stream: Stream) -> None:
    data = os.urandom(1 << 20)
    stream.transport.write(data)
    assert stream.protocol.told[-1] == ("pause",)
    stream.transport.write(b"more")
    assert stream.read(len(data) + 4) == data + b"more"
    stream.turn_until(lambda: stream.protocol.told[-1] == ("resume",))
    assert stream.protocol.told.count(("pause",)) == 1
    assert stream.transport.get_write_buffer_size() == 0


def test_closing_sends_what_is_left(stream: Stream) -> None:
    data = bytes(1 << 20)
    stream.transport.write(data)
    stream.transport.close()
    stream.transport.close()
    stream.transport.write(b"dropped")
    assert stream.read(len(data)) == data
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told[-1] == ("lost", None)
    assert stream.far.recv(1) == b""


def test_closing_does_not_wait_for_ever(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsserver.signers.keyserver_stream._LINGER", 0.0)
    stream.transport.write(bytes(1 << 20))
    stream.transport.close()
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told[-1] == ("lost", None)


def test_half_closed_peer_still_reads(stream: Stream) -> None:
    stream.far.sendall(b"last")
    stream.far.shutdown(socket.SHUT_WR)
    stream.turn_until(lambda: ("eof",) in stream.protocol.told)
    stream.transport.write(b"answer")
    stream.transport.resume_reading()
    assert stream.far.recv(10) == b"answer"
    assert not stream.closed


def test_peer_that_is_gone(stream: Stream) -> None:
    stream.far.close()
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told == [("made",), ("lost", None)]
    assert stream.transport.is_closing()


def test_peer_that_goes_while_we_write(stream: Stream) -> None:
    stream.transport.pause_reading()
    stream.far.close()
    stream.transport.write(b"to nobody")
    stream.turn_until(lambda: stream.closed)
    assert isinstance(stream.protocol.told[-1][1], BrokenPipeError)


@pytest.mark.parametrize("method", ["made", "data", "lost"])
def test_protocol_that_fails(method: str, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(method)
    stream.far.sendall(b"x")
    stream.turn()
    stream.transport.close()
    stream.turn_until(lambda: stream.closed)
    assert "a protocol failed" in caplog.text
    assert stream.protocol.told[-1][0] == "lost"
    stream.far.close()
    stream.reactor.close()
