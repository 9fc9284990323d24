"""Admission, the queue for jobs, stopping gracefully, errors of our own: real handshakes, the loop turned by hand."""

from __future__ import annotations

import functools
import logging
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Client, House, make_context

import engine_shim
import tlsserver.service
from tlsserver.connection import Connection
from tlsserver.selector import load_selectors2
from tlsserver.session import Session
from tlsserver.wire import Step, WaitFdSet

if TYPE_CHECKING:
    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")


# Admission


def test_no_more_handshakes_than_allowed(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual, max_handshakes=3) as house:
        for _ in range(8):
            house.client()
        house.until(lambda: manual.pending == 3)
        house.quiet()
        assert house.statistics.connections_accepted == 3
        house.finish(manual)
        house.until(lambda: house.statistics.handshakes_completed == 8)  # with TLS 1.3 the client is connected first
        assert house.statistics.parked_max == 3


def test_failed_handshakes_make_room(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual, max_handshakes=1) as house:
        first = house.client()
        second = house.client()
        house.until(lambda: manual.pending)
        first.close()
        house.clients.remove(first)
        house.finish(manual)
        assert second.is_connected


def test_no_more_connections_than_allowed(identity: Identity) -> None:
    with House(identity, limit_concurrency=2) as house:
        first, _ = house.connected(), house.connected()
        third = house.client()
        house.quiet()
        assert not third.is_connected
        first.close()
        house.until(lambda: third.is_connected)
        assert house.statistics.connections_open == 2


# No job to be had


class Jobless(Session):
    """Has a job only while ``jobs`` allows it; OpenSSL says so where its pool of jobs is bounded."""

    __slots__ = ("has_job",)
    jobs = 0
    order: list[Jobless] = []  # noqa: RUF012 - set anew by the test

    def handshake(self) -> Step:
        if not getattr(self, "has_job", False):
            if type(self).jobs == 0:
                return Step.WANT_ASYNC_JOB
            type(self).jobs -= 1
            self.has_job = True
            self.order.append(self)
        step = super().handshake()
        if step is not Step.WANT_ASYNC:
            self._give_back()
        return step

    def close(self) -> bool:
        self._give_back()
        return super().close()

    def _give_back(self) -> None:
        type(self).jobs += getattr(self, "has_job", False)
        self.has_job = False


def has_accepted(house: House, count: int) -> bool:
    return house.statistics.connections_accepted == count


def are_connected(clients: list[Client]) -> bool:
    return all(client.is_connected for client in clients)


def test_first_come_first_served(
    identity: Identity, manual: engine_shim.ManualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsserver.service, "Session", Jobless)
    Jobless.jobs, Jobless.order = 2, []
    with House(identity, manual) as house:
        clients = [house.client()]
        for number in range(1, 6):
            clients.append(house.client())
            house.until(functools.partial(has_accepted, house, number + 1))
            house.quiet()
        assert (manual.pending, house.statistics.queued_now) == (2, 4)
        for count in range(1, 7):
            manual.perform()
            house.until(functools.partial(are_connected, clients[:count]))
            assert not any(client.is_connected for client in clients[count:])
        assert house.statistics.queued_now == 0


def test_a_job_that_others_hold_is_asked_for_again(
    identity: Identity, manual: engine_shim.ManualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsserver.service, "Session", Jobless)
    Jobless.jobs, Jobless.order = 0, []
    with House(identity, manual) as house:
        client = house.client()
        house.until(lambda: house.statistics.queued_now)
        Jobless.jobs = 1
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: client.is_connected)


def test_leaving_the_queue_makes_no_hole(
    identity: Identity, manual: engine_shim.ManualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsserver.service, "Session", Jobless)
    Jobless.jobs, Jobless.order = 0, []
    with House(identity, manual) as house:
        first, second = house.client(), house.client()
        house.until(lambda: house.statistics.queued_now == 2)
        first.close()
        house.clients.remove(first)
        Jobless.jobs = 1
        house.finish(manual)
        assert second.is_connected
        assert house.statistics.handshakes_failed == 1


# Errors of our own


@pytest.mark.parametrize("method", ["readable", "settle", "resume", "expire"])
def test_an_error_of_ours_costs_one_connection(
    identity: Identity,
    manual: engine_shim.ManualEngine,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with House(identity, manual) as house:
        other = house.client()
        house.finish(manual)
        house.client()
        house.until(lambda: manual.pending)
        [victim] = [one.connection for one in house.service._hub.drivers if one.connection.tls is None]
        real = getattr(Connection, method)

        def broken(self: Connection, now: float) -> None:
            if self is victim:
                message = "on purpose"
                raise RuntimeError(message)
            real(self, now)

        monkeypatch.setattr(Connection, method, broken)
        if method == "readable":
            house.clients[-1].socket.send(b"x")
        elif method == "resume":
            manual.perform()
        else:
            next(one for one in house.service._hub.drivers if one.connection is victim)._feed(
                victim.expire if method == "expire" else victim.turn
            )
        with caplog.at_level(logging.ERROR):
            house.until(lambda: house.statistics.connections_open == 1)
        other.send(b"alive")
        house.until(lambda: other.received == b"ALIVE")
    assert "on purpose" in caplog.text


def test_a_wait_fd_that_cannot_be_watched_is_polled(
    identity: Identity, manual: engine_shim.ManualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = socket.socket()
    number = closed.fileno()
    closed.close()
    monkeypatch.setattr(Session, "wait_fds", lambda _self: WaitFdSet((number + 5000,), ()))
    with House(identity, manual) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: client.is_connected)


def test_swapping_the_context(identity: Identity, certificates: Certificates, manual: engine_shim.ManualEngine) -> None:
    with House(identity) as house:
        old = house.connected()
        house.server.swap_context(make_context(certificates["rsa2048"], manual))
        new = house.client()
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: new.is_connected)
        assert old.tls.getpeercert(binary_form=True) != new.tls.getpeercert(binary_form=True)
        old.send(b"still here")
        house.until(lambda: old.received == b"STILL HERE")
        assert house.statistics.ops_performed == 1


# Costs


def test_a_handshake_changes_the_selector_only_where_it_must(identity: Identity) -> None:
    """One registration for each socket, one for a wait fd that comes again and again; no change in between."""
    changes: Counter[str] = Counter()

    class Counting(load_selectors2().EpollSelector):  # type: ignore[misc]
        def register(self, *args: Any) -> Any:
            changes["register"] += 1
            return super().register(*args)

        def modify(self, *args: Any) -> Any:
            changes["modify"] += 1
            return super().modify(*args)

        def unregister(self, *args: Any) -> Any:
            changes["unregister"] += 1
            return super().unregister(*args)

    with engine_shim.ManualEngine() as manual, House(identity, manual, selector=Counting()) as house:
        changes.clear()
        for _ in range(3):
            client = house.client()
            house.until(lambda: manual.pending)
            house.finish(manual)
            client.send(b"x")
            house.until(functools.partial(getattr, client, "received"))
            client.say_goodbye()
            house.until(lambda: house.statistics.connections_open == 0)
    assert changes["modify"] == 0
    assert (changes["register"], changes["unregister"] - 1) == (3 + 1, 3)  # 1: the listener's, at the end
