"""Clients that leave while an operation is paused that nobody can cancel: the connection drains until it ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from helpers_server import House, check_nothing_left

import engine_shim
from engine_shim.paused import drain_paused
from support.clients import Crowd, Target, client_hello
from support.running import Clock, Running
from tlsserver import TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.state import State
from tlsserver.testing import AT_ONCE, HELD, Change, Script, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers_server import Client

    from support.certificates import Identity

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])

# They pause until the test says so.
FOR_EVER = {
    "one fd": HELD,
    "three fds": Script(fds=3),
    "no fd": Script(fds=0),
    "fds that stay readable": Script(sticky=True),
    "woken for nothing before": Script(false_wakes=2),
    "another fd at each pause": Script(pauses=3, change=Change.RENEW),
    "the same number at each pause": Script(pauses=3, change=Change.REUSE),
}
WAYS: dict[str, Callable[[Client], None]] = {
    "closes": lambda client: client.close(),
    "resets": lambda client: client.reset(),
}


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield from (made for _ in check_nothing_left())
        counts = made.counts()
        assert (counts.alive, counts.fds_open, counts.orphaned) == (0, 0, 0)


def park(scripted: ScriptedProvider, house: House, *steps: Script) -> list[Client]:
    """Let clients come whose handshakes pause."""
    before, parked = len(scripted.waiting()), house.statistics.parked_now
    scripted.script(*steps)
    clients = [house.client() for _ in steps]
    house.until(lambda: len(scripted.waiting()) == before + len(steps))
    house.until(lambda: house.statistics.parked_now == parked + len(steps))
    return clients


def leave(house: House, client: Client, way: Callable[[Client], None] = WAYS["resets"]) -> None:
    """Let a client go, and the server see it."""
    before = house.statistics.draining_now
    way(client)
    house.clients.remove(client)
    house.until(lambda: house.statistics.draining_now == before + 1)


def check_served(house: House) -> None:
    """Let another client come, whose operation does not pause."""
    other = house.connected()
    other.send(b"other")
    house.until(lambda: other.received == b"OTHER")
    other.close()
    house.clients.remove(other)


@VERSIONS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FOR_EVER)
def test_drains_until_it_ends(
    scripted: ScriptedProvider, identity: Identity, version: str, name: str, way: str
) -> None:
    with House(identity, scripted.engine, version=version) as house:
        (client,) = park(scripted, house, FOR_EVER[name])
        leave(house, client, WAYS[way])
        statistics = house.statistics
        assert (statistics.parked_now, statistics.handshakes_failed, statistics.handshakes_in_progress) == (0, 1, 0)
        for _ in range(3):
            check_served(house)
        assert house.statistics.draining_now == 1
        assert scripted.counts().alive == 1
        scripted.release_all()
        house.until(house.is_empty)
        check_served(house)


@VERSIONS
def test_woken_while_it_drains(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """A readable fd means "try again", and not that it has ended."""
    with House(identity, scripted.engine, version=version) as house:
        (client,) = park(scripted, house, Script(pauses=3, fds=2, change=Change.RENEW))
        leave(house, client)
        resumed = scripted.counts().pauses
        scripted.wake(fd=1)
        house.until(lambda: scripted.counts().pauses > resumed)
        for number in (2, 3):
            scripted.complete(fd=1)
            house.until(lambda number=number: [waiting.pause for waiting in scripted.waiting()] == [number])  # type: ignore[misc]
            assert house.statistics.draining_now == 1
        scripted.fail()
        house.until(house.is_empty)


@VERSIONS
def test_a_wait_fd_of_the_drained_comes_back(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """Another connection's operation gets the number that a drained one has closed."""
    with House(identity, scripted.engine, version=version) as house:
        for _ in range(5):
            (client,) = park(scripted, house, HELD)
            (number,) = scripted.waiting()[0].fds
            leave(house, client)
            scripted.complete()
            house.until(house.is_empty)
            (client,) = park(scripted, house, HELD)
            assert scripted.waiting()[0].fds == (number,)
            scripted.complete()
            house.until(lambda client=client: client.is_connected)  # type: ignore[misc]
            client.close()
            house.clients.remove(client)
            house.until(house.is_empty)


@VERSIONS
def test_timed_out(
    scripted: ScriptedProvider, identity: Identity, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client stays; the handshake's time is up."""
    scripted.script(HELD)
    clock = Clock(monkeypatch)
    with Running(TLSContext(identity.cert, scripted.load_key(identity.key)), EchoProtocol) as site:
        hello = client_hello(Target(site.port, identity, version))
        with Crowd(site.address, 1) as crowd:
            crowd.send(hello)
            site.until(lambda numbers: numbers.parked_now == 1)
            clock.advance(11, site)
            site.until(lambda numbers: numbers.draining_now == 1)
            crowd.wait_closed()
        scripted.release_all()
        site.until(lambda numbers: numbers.draining_now == numbers.connections_open == 0)


@VERSIONS
def test_many(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """A crowd leaves at once; what it leaves behind ends in any order."""
    scripted.default(HELD)
    with Running(TLSContext(identity.cert, scripted.load_key(identity.key)), EchoProtocol) as site:
        hello = client_hello(Target(site.port, identity, version))
        with Crowd(site.address, 50) as crowd:
            crowd.send(hello)
            site.until(lambda numbers: numbers.parked_now == 50)
            crowd.reset()
            site.until(lambda numbers: numbers.draining_now == 50)
        for index in (7, 30, 0):
            scripted.complete(index)
        site.until(lambda numbers: numbers.draining_now == 47)
        scripted.release_all()
        numbers = site.until(lambda numbers: numbers.draining_now == numbers.connections_open == 0)
        assert (numbers.handshakes_failed, numbers.handshakes_in_progress) == (50, 0)


# The bound


@VERSIONS
def test_bound(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """At the bound new handshakes are refused with an alert, open connections go on; below it all is as before."""
    with House(identity, scripted.engine, version=version, max_draining=2) as house:
        opened = house.connected()
        clients = park(scripted, house, HELD, HELD, HELD)
        leave(house, clients[0])
        check_served(house)
        leave(house, clients[1])
        refused = house.client()
        house.until(lambda: refused.error)
        assert refused.error is not None
        assert "INTERNAL_ERROR" in (refused.error.reason or "")
        assert house.statistics.handshakes_refused == 1
        assert house.statistics.draining_by_engine == {"provider:scripted": 2}
        opened.send(b"open")
        house.until(lambda: opened.received == b"OPEN")
        scripted.complete(2)  # in progress when the door was closed: it goes on
        house.until(lambda: clients[2].is_connected)
        scripted.complete()
        house.until(lambda: house.statistics.draining_now == 1)
        check_served(house)
        scripted.release_all()
        house.until(lambda: house.statistics.draining_now == 0)
        statistics = house.statistics
        assert (statistics.draining_max, statistics.drained) == (2, 2)


@VERSIONS
def test_bound_of_another_engine(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """The list that is full is the provider's: another engine's handshakes are served."""
    with (
        House(identity, scripted.engine, version=version, max_draining=1) as house,
        engine_shim.ThreadEngine() as other,
    ):
        (client,) = park(scripted, house, HELD)
        leave(house, client)
        refused = house.client()
        house.until(lambda: refused.error)
        house.server.swap_context(TLSContext(identity.cert, other.load_key(identity.key)))
        check_served(house)
        scripted.release_all()
        house.until(lambda: house.statistics.draining_now == 0)


# The end of the server


@VERSIONS
def test_server_ends_before_the_operation(
    scripted: ScriptedProvider,
    identity: Identity,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It waits for a while, says so, and leaves the job behind; whoever lets it end later frees all of it."""
    monkeypatch.setattr("tlsserver.service._DRAIN_SECONDS", 0.05)
    with House(identity, scripted.engine, version=version) as house:
        (client,) = park(scripted, house, HELD)
        with caplog.at_level(logging.ERROR):
            house.service.close()
        assert "1 jobs have not ended" in caplog.text
        assert house.statistics.draining_now == 1
        assert [driver.connection.state for driver in house.service._hub.drivers] == [State.DRAINING]
        client.close()
    scripted.release_all()
    drain_paused()
    for driver in tuple(house.service._hub.drivers):
        driver._socket.close()


@VERSIONS
def test_server_ends_with_the_operation(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    with House(identity, scripted.engine, version=version) as house:
        (client,) = park(scripted, house, Script(told=True, pauses=2))
        leave(house, client)
        scripted.complete()
        house.until(scripted.waiting)
        scripted.release_all()
    assert house.statistics.draining_now == 0


def test_nothing_pauses_unless_a_script_says_so(scripted: ScriptedProvider, identity: Identity) -> None:
    with House(identity, scripted.engine) as house:
        scripted.default(AT_ONCE)
        check_served(house)
        assert house.statistics.handshakes_parked == 0
