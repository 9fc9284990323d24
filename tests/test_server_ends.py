"""How real connections end, and that nothing is lost when they do; the loop is turned by hand."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Echo, House

from tlsserver.errors import ConnectionTimeoutError, PeerLeftError, TruncatedError

if TYPE_CHECKING:
    import engine_shim
    from support.certificates import Identity
    from support.running import Clock

pytestmark = pytest.mark.usefixtures("nothing_left")


class Ends(Echo):
    """Remembers its ends."""

    ends: list[Any] = []  # noqa: RUF012 - emptied by each test

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ends.append(exc)


@pytest.fixture
def ends() -> list[Any]:
    Ends.ends = []
    return Ends.ends


def test_a_truncated_stream(identity: Identity, ends: list[Any]) -> None:
    with House(identity, factory=Ends) as house:
        client = house.connected()
        house.quiet()  # unread session tickets would turn the close into a reset
        client.close()
        house.until(house.is_empty)
    assert [type(end) for end in ends] == [TruncatedError]


def test_a_reset_connection(identity: Identity, ends: list[Any]) -> None:
    with House(identity, factory=Ends) as house:
        house.connected().reset()
        house.until(house.is_empty)
    assert [type(end) for end in ends] == [PeerLeftError]


def test_a_broken_record(identity: Identity, ends: list[Any]) -> None:
    with House(identity, factory=Ends) as house:
        house.connected().socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        house.until(house.is_empty)
    assert [end.fault for end in ends] == ["peer"]


def test_data_with_the_end_arrives(identity: Identity, ends: list[Any]) -> None:
    with House(identity, factory=Ends) as house:
        client = house.connected()
        client.send(b"last words")
        client.say_goodbye()
        client.socket.shutdown(socket.SHUT_WR)
        house.until(house.is_empty)
        client.step()
        assert client.received == b"LAST WORDS"
    assert ends == [None]


def test_a_large_answer_is_whole(identity: Identity, ends: list[Any]) -> None:
    """The protocol closes at once; the client reads slowly; nothing is lost and the buffer's marks are kept."""
    size = 3_000_000

    class Large(Ends):
        marks: list[str] = []  # noqa: RUF012 - one connection

        def data_received(self, data: bytes) -> None:
            self.transport.write(data * size)  # type: ignore[attr-defined]
            self.transport.close()

        def pause_writing(self) -> None:
            self.marks.append("pause")

        def resume_writing(self) -> None:
            self.marks.append("resume")

    with House(identity, factory=Large) as house:
        client = house.connected()
        client.send(b"x")
        house.until(lambda: client.is_ended)
        assert len(client.received) == size
        client.say_goodbye()
        house.until(house.is_empty)
    assert ends == [None]
    assert Large.marks == ["pause", "resume"]


def test_a_large_request_is_whole(identity: Identity) -> None:
    class Count(Echo):
        total = 0

        def data_received(self, data: bytes) -> None:
            type(self).total += len(data)

    with House(identity, factory=Count, read_budget=20_000) as house:
        client = house.connected()
        for _ in range(40):
            client.send(bytes(50_000))
            house.quiet(10)
        house.until(lambda: Count.total == 2_000_000)


class PausesAndCloses(Ends):
    """Stops reading at the first data, and closes in the turn after."""

    transport: Any

    def data_received(self, _data: bytes) -> None:
        self.transport.pause_reading()
        self.transport.get_extra_info("reactor").call_soon(self.transport.close)


def test_a_goodbye_that_came_while_reading_was_paused(identity: Identity, ends: list[Any]) -> None:
    """The client keeps TCP open: nothing but its close_notify, which OpenSSL has read already, tells of the end."""
    PausesAndCloses.ends = ends
    with House(identity, factory=PausesAndCloses, timeout_shutdown=3600) as house:
        client = house.connected()
        house.quiet()
        client.tls.write(b"one")
        client.tls.write(b"two")
        client.say_goodbye()
        house.until(house.is_empty)
    assert ends == [None]


class ClosesItsSocket(Ends):
    """The first one does what no protocol may do."""

    did = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if not type(self).did:
            type(self).did = True
            transport.pause_reading()
            transport.get_extra_info("socket").close()


def test_a_socket_that_its_protocol_has_closed_costs_nobody_else(
    identity: Identity, ends: list[Any], manual: engine_shim.ManualEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Four handshakes end in one turn."""
    ClosesItsSocket.ends, ClosesItsSocket.did = ends, False
    with House(identity, manual, factory=ClosesItsSocket) as house:
        clients = [house.client() for _ in range(4)]
        house.until(lambda: manual.pending == 4)
        for _ in range(4):
            manual.perform()
        house.until(lambda: len(ends) == 1)
        for client in clients:
            with contextlib.suppress(OSError):  # ssl.SSLError is one: that client's connection has gone
                client.send(b"still here")
        house.until(lambda: sum(client.received == b"STILL HERE" for client in clients) == 3)
        for client in clients:
            client.close()
        house.clients.clear()
        house.until(house.is_empty)
    assert "a connection failed and is dropped" in caplog.text


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_an_idle_connection_ends_however_often_it_was_looked_at(
    identity: Identity, ends: list[Any], clock: Clock, rounds: int
) -> None:
    """A deadline that has moved on is found too early, once for each move; it must be set again each time."""
    with House(identity, factory=Ends, timeout_idle=60) as house:
        client = house.connected()
        for count in range(1, rounds + 1):
            clock.advance(50)
            client.send(b"hello")
            house.until(lambda count=count: len(client.received) == 5 * count)  # type: ignore[misc]
            house.quiet()
        clock.advance(59)
        house.quiet()
        assert not ends
        clock.advance(2)
        house.quiet()
        assert [type(end) for end in ends] == [ConnectionTimeoutError]
