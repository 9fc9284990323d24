"""The server with any engine: one handshake for each behaviour that an asynchronous provider can show.

The table is the list of behaviours; each runs with TLS 1.2 and 1.3. While one handshake is on its way another client
is served, and in the end nothing is left: no job, no operation, no wait fd.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from helpers_server import Client, House, check_nothing_left, client_context

from support.running import Running
from support.storm import Storm
from tlsserver import TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.testing import AT_ONCE, HELD, SIGNALLED, Change, Script, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates, Identity

VERSIONS = ("1.2", "1.3")


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield from (made for _ in check_nothing_left())
        counts = made.counts()
        assert (counts.alive, counts.fds_open, counts.orphaned) == (0, 0, 0)


# What the test does until the operation has ended.


def nothing(_scripted: ScriptedProvider, _house: House) -> None:
    """It ends by itself."""


def complete(scripted: ScriptedProvider, house: House) -> None:
    """Complete every pause, each after a while in which nothing may happen."""
    (waiting,) = scripted.waiting()
    while waiting:
        house.quiet(5)
        assert scripted.waiting() == (waiting,)
        assert house.statistics.parked_now == 1
        scripted.complete(fd=len(waiting.fds) - 1 if waiting.fds else 0)
        before = waiting
        house.until(lambda before=before: scripted.waiting() != (before,) or not scripted.counts().alive)  # type: ignore[misc]
        house.until(lambda: scripted.waiting() or not scripted.counts().alive)
        waiting = next(iter(scripted.waiting()), None)  # type: ignore[assignment]


def fail(scripted: ScriptedProvider, house: House) -> None:
    """Let it fail."""
    house.quiet(5)
    scripted.fail()


def wake(scripted: ScriptedProvider, house: House) -> None:
    """Make each of its fds readable for nothing, then complete it."""
    (waiting,) = scripted.waiting()
    for fd in range(len(waiting.fds)):
        resumed = scripted.counts().for_nothing
        scripted.wake(fd=fd)
        house.until(lambda resumed=resumed: scripted.counts().for_nothing == resumed + 1)  # type: ignore[misc]
        assert scripted.waiting() == (waiting,)
    complete(scripted, house)


def wait_for_others(scripted: ScriptedProvider, house: House) -> None:
    """Its fds stay readable whatever is done: that must cost little, and others are served meanwhile."""
    house.quiet(200)
    # A turn of the loop takes some microseconds: without any patience it would have been resumed in each of them.
    assert scripted.counts().for_nothing < 60
    scripted.complete()


@dataclass(frozen=True)
class Behaviour:
    """A row of the table.

    Attributes:
        step: What the signature of the handshake does.
        drive: What the test does meanwhile.
        parked: Whether the handshake is parked.
        pauses: How often it is paused; None: as often as it was polled.
        fails: Whether the handshake fails.
    """

    step: Script
    drive: Callable[[ScriptedProvider, House], None] = nothing
    parked: bool = True
    pauses: int | None = 1
    fails: bool = False


BEHAVIOURS = {
    "at once": Behaviour(AT_ONCE, parked=False, pauses=0),
    "at once, and fails": Behaviour(Script(pauses=0, fails=True), parked=False, pauses=0, fails=True),
    "signals before it pauses": Behaviour(SIGNALLED),
    "signals before it pauses, and fails": Behaviour(Script(told=False, fails=True), fails=True),
    "after a signal": Behaviour(HELD, complete),
    "after a signal, and fails": Behaviour(HELD, fail, fails=True),
    "several pauses": Behaviour(Script(told=False, pauses=5), pauses=5),
    "several pauses, each after a signal": Behaviour(Script(pauses=3), complete, pauses=3),
    "wakes for nothing": Behaviour(Script(told=False, false_wakes=3), pauses=4),
    "is woken for nothing": Behaviour(HELD, wake, pauses=2),
    "another fd at each pause": Behaviour(Script(pauses=3, change=Change.RENEW), complete, pauses=3),
    "the same number at each pause": Behaviour(Script(pauses=3, change=Change.REUSE), complete, pauses=3),
    "another fd, signalled already": Behaviour(Script(told=False, pauses=3, change=Change.RENEW), pauses=3),
    "the same number, signalled already": Behaviour(Script(told=False, pauses=3, change=Change.REUSE), pauses=3),
    "another fd after waking for nothing": Behaviour(Script(false_wakes=2, change=Change.RENEW), complete, pauses=3),
    "the same number after waking for nothing": Behaviour(
        Script(false_wakes=2, change=Change.REUSE), complete, pauses=3
    ),
    "three fds": Behaviour(Script(fds=3), complete),
    "three fds, woken by each": Behaviour(Script(fds=3), wake, pauses=4),
    "three fds that change": Behaviour(Script(fds=3, pauses=3, change=Change.REUSE), complete, pauses=3),
    "no fd": Behaviour(Script(fds=0), complete, pauses=None),
    "no fd, several pauses": Behaviour(Script(fds=0, pauses=3), complete, pauses=None),
    "fds that stay readable": Behaviour(Script(sticky=True), wait_for_others, pauses=None),
    "three fds that stay readable": Behaviour(Script(sticky=True, fds=3), wait_for_others, pauses=None),
    "a callback that nobody has set": Behaviour(Script(callback=True), complete),
}


def served(house: House, client: Client, data: bytes) -> bool:
    """Send, and let it come back."""
    client.send(data)
    house.until(lambda: client.received == data.upper())
    return True


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(scripted: ScriptedProvider, identity: Identity, version: str, name: str) -> None:
    row = BEHAVIOURS[name]
    scripted.script(row.step)
    with House(identity, scripted.engine, version=version) as house:
        client = house.client()
        if row.step.told and row.parked:
            house.until(lambda: scripted.waiting() and house.statistics.parked_now == 1)
            assert served(house, house.connected(), b"meanwhile")
        row.drive(scripted, house)
        house.until(lambda: client.is_connected or client.is_cut)
        assert (client.error is not None) == row.fails
        assert row.fails or served(house, client, b"data")
        assert served(house, house.connected(), b"afterwards")
        statistics = house.statistics
        assert statistics.handshakes_parked == int(row.parked)
        assert (statistics.handshakes_failed, statistics.parked_now) == (int(row.fails), 0)
    counts = scripted.counts()
    assert counts.failed == int(row.fails)
    assert counts.pauses == row.pauses or (row.pauses is None and counts.pauses > row.step.pauses)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_kinds_of_key(scripted: ScriptedProvider, certificates: Certificates, version: str, kind: str) -> None:
    scripted.default(Script(told=False, pauses=2))
    with House(certificates[kind], scripted.engine, version=version) as house:
        assert served(house, house.connected(), b"data")
    assert scripted.counts().pauses == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_completed_in_any_order(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    scripted.default(HELD)
    order = random.Random(3)
    with House(identity, scripted.engine, version=version) as house:
        clients = [house.client() for _ in range(12)]
        house.until(lambda: house.statistics.parked_now == len(clients))
        for left in range(len(clients), 0, -1):
            scripted.complete(order.randrange(left))
            house.until(lambda left=left: sum(client.is_connected for client in clients) == len(clients) - left + 1)  # type: ignore[misc]
    assert scripted.counts().completed == len(clients)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_at_once(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """Sixty handshakes, each of which behaves in its own way."""
    ways = [row.step for row in BEHAVIOURS.values() if not row.step.told and not row.step.fails]
    ways.append(Script(told=False, fds=0, pauses=2))
    scripted.script(*random.Random(4).choices(ways, k=60))
    context = TLSContext(identity.cert, scripted.load_key(identity.key))
    with Running(context, EchoProtocol) as site:
        client = client_context(identity.ca, version)
        with Storm(site.address, 60, client) as storm:
            storm.handshake()
            storm.echo(b"data" * 1000)
        site.until(lambda numbers: numbers.connections_open == 0)
        assert site.statistics().handshakes_completed == 60
    assert scripted.counts().completed == 60
