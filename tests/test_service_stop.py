"""Stopping gracefully, with real handshakes; the loop is turned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Echo, House

import tlsserver.service
from tlsserver.session import Session

if TYPE_CHECKING:
    import engine_shim
    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("nothing_left")


# Stopping


class Slow(Echo):
    """Answers when told to; can finish gracefully."""

    made: list[Slow] = []  # noqa: RUF012 - emptied by each test
    finishing = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.made.append(self)
        self.request = b""

    def data_received(self, data: bytes) -> None:
        self.request += data

    def close_when_idle(self) -> None:
        self.finishing = True
        if not self.request:
            self.transport.close()

    def answer(self) -> None:
        self.transport.write(self.request.upper())  # type: ignore[attr-defined]
        if self.finishing:
            self.transport.close()


def stop(house: House, seconds: float) -> None:
    house.reactor.call_soon(house.service.begin_stop, seconds)
    house.turn()


def test_what_is_in_progress_is_finished(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    Slow.made = []
    with House(identity, manual, factory=Slow) as house:
        idle, busy = house.client(), house.client()
        house.finish(manual)
        handshaking = house.client()
        house.until(lambda: manual.pending)
        busy.send(b"question")
        house.until(lambda: any(one.request for one in Slow.made))
        stop(house, 20)
        with pytest.raises(ConnectionRefusedError):
            house.client()
        house.until(lambda: idle.is_ended)
        assert not busy.is_ended
        manual.perform()
        house.until(lambda: handshaking.is_connected and handshaking.is_ended)
        next(one for one in Slow.made if one.request).answer()
        house.until(lambda: busy.is_ended)
        assert busy.received == b"QUESTION"
        for client in (idle, busy, handshaking):
            client.say_goodbye()
        house.until(lambda: not house.service._hub.drivers)
        assert house.reactor._stopping


def test_the_waiting_are_served_before_the_end(identity: Identity) -> None:
    """They believe to be connected: a close of the listening socket would reset them."""
    with House(identity) as house:
        client = house.client()
        stop(house, 20)
        house.until(lambda: client.is_connected and client.is_ended)


def test_the_time_to_finish_has_an_end(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    Slow.made = []
    with House(identity, manual, factory=Slow) as house:
        client = house.client()
        house.finish(manual)
        client.send(b"question")
        house.until(lambda: Slow.made[0].request)
        parked = house.client()
        house.until(lambda: manual.pending)
        stop(house, 0.01)
        house.until(lambda: not house.service._hub.drivers)
        house.until(lambda: client.is_cut and parked.is_cut)
        assert house.statistics.ops_cancelled == 1


def test_a_second_stop_is_at_once(identity: Identity) -> None:
    Slow.made = []
    with House(identity, factory=Slow) as house:
        house.connected().send(b"question")
        house.until(lambda: Slow.made and Slow.made[0].request)
        stop(house, 1000)
        assert house.service._hub.drivers
        stop(house, 0)
        house.turn()
        assert not house.service._hub.drivers


def test_a_job_that_never_ends_is_left_behind(
    identity: Identity,
    manual: engine_shim.ManualEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Waiting for it neither spins nor lasts for ever."""
    stubborn = [True]

    class Stubborn(Session):
        __slots__ = ()

        def close(self) -> bool:
            return not stubborn[0] and super().close()

    monkeypatch.setattr(tlsserver.service, "Session", Stubborn)
    monkeypatch.setattr(tlsserver.service, "_DRAIN_SECONDS", 0.2)
    house = House(identity, manual)
    house.client()
    house.until(lambda: manual.pending)
    turns: list[None] = []
    house.reactor.at_end_of_turn(lambda: turns.append(None))
    drivers = list(house.service._hub.drivers)
    house.close()
    assert len(turns) < 30
    assert "1 jobs have not ended" in caplog.text
    stubborn[0] = False
    for driver in drivers:
        driver.connection._life.end(0)
        driver._socket.close()
