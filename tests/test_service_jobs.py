"""A bounded pool of OpenSSL's jobs: who gets one when they are short. Real handshakes, the loop turned by hand."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers_server import PATIENCE, Client, Echo, House, client_context, make_context

import engine_shim
import tlsserver.service
from support.waiting import readable
from tlsserver import Server
from tlsserver.connection import Connection
from tlsserver.errors import ConfigurationError
from tlsserver.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Identity
    from tlsserver import TLSContext

pytestmark = pytest.mark.usefixtures("nothing_left")

WIDTH = 8


@pytest.fixture
def pool() -> Iterator[None]:
    """This thread has so many jobs and no more."""
    engine_shim.init_thread(WIDTH)
    yield
    engine_shim.cleanup_thread()


@pytest.fixture
def pool_of_one() -> Iterator[engine_shim.ManualEngine]:
    """An engine whose operations end when the test says so, on a thread with one job."""
    engine_shim.init_thread(1)
    with engine_shim.ManualEngine() as manual:
        yield manual
    engine_shim.cleanup_thread()


@pytest.fixture
def context(identity: Identity) -> TLSContext:
    return make_context(identity)


class Finishes:
    """A protocol factory that notes the order in which the server finishes the handshakes: by the clients' ports."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    def __call__(self) -> Echo:
        finishes = self

        class Noting(Echo):
            def connection_made(self, transport: object) -> None:
                finishes.ports.append(transport.get_extra_info("peername")[1])  # type: ignore[attr-defined]
                super().connection_made(transport)  # type: ignore[arg-type]

        return Noting()


@pytest.mark.serial  # it has to be nearly as fast as the pool allows
@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_crowd_finishes_in_the_order_of_its_arrival(identity: Identity, version: str) -> None:
    count, seconds = 400, 0.05
    finishes = Finishes()
    with (
        engine_shim.LatencyEngine(seconds) as engine,
        House(identity, engine, version=version, factory=finishes) as house,
    ):
        for _ in range(count):
            house.client()
        arrivals = [client.socket.getsockname()[1] for client in house.clients]
        began = time.monotonic()
        house.until(lambda: len(finishes.ports) == count)
        took = time.monotonic() - began
        statistics = house.statistics
    late = [finishes.ports.index(port) - at for at, port in enumerate(arrivals)]
    assert max(map(abs, late)) <= WIDTH
    assert statistics.parked_max == WIDTH
    assert (statistics.handshakes_completed, statistics.handshakes_failed) == (count, 0)
    # As fast as the pool allows; the upper bound leaves a busy machine twice as long.
    ideal = count / WIDTH * seconds
    assert ideal <= took < 2 * ideal


def test_a_client_that_leaves_the_line_makes_no_hole(identity: Identity, pool_of_one: engine_shim.ManualEngine) -> None:
    with House(identity, pool_of_one) as house:
        first, leaver, last = house.client(), house.client(), house.client()
        house.until(lambda: house.statistics.queued_now == 2)
        leaver.close()
        house.clients.remove(leaver)
        house.finish(pool_of_one)
        assert first.is_connected
        assert last.is_connected
        assert house.statistics.ops_performed == 2, "no operation for a client that has given up"
        assert house.statistics.handshakes_failed == 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_reads_and_writes_wait_for_a_job_too(
    identity: Identity, pool_of_one: engine_shim.ManualEngine, version: str
) -> None:
    """Where an engine offloads ciphers every call needs a job: an open connection stands in the same line."""
    with House(identity, pool_of_one, version=version) as house:
        house.server.swap_context(make_context(identity, pool_of_one, async_io=True))
        opened = house.client()
        house.finish(pool_of_one)
        later = house.client()
        house.until(lambda: pool_of_one.pending)
        opened.send(b"hello")
        house.until(lambda: house.statistics.queued_now == 1)
        house.quiet()
        assert opened.received == b""
        house.finish(pool_of_one)
        house.until(lambda: opened.received == b"HELLO")
        opened.say_goodbye()
        house.until(lambda: opened.is_ended)
        assert later.is_connected


def test_whoever_closes_while_waiting_for_a_job(identity: Identity, pool_of_one: engine_shim.ManualEngine) -> None:
    with House(identity, pool_of_one) as house:
        house.server.swap_context(make_context(identity, pool_of_one, async_io=True))
        opened = house.client()
        house.finish(pool_of_one)
        house.client()
        house.until(lambda: pool_of_one.pending)
        opened.send(b"hello")
        house.until(lambda: house.statistics.queued_now == 1)
        opened.reset()
        house.clients.remove(opened)
        house.until(lambda: house.statistics.connections_open == 1)
        assert house.statistics.queued_now == 0
        assert house.service._hub.jobs.waiting == []


@pytest.mark.parametrize("where", [State.PARKED, State.QUEUED])
def test_a_connection_that_cannot_even_be_closed_keeps_no_place(
    identity: Identity, pool_of_one: engine_shim.ManualEngine, where: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are its wait fds watched any more: what is left of it must not hold up, or wake, anybody."""
    with House(identity, pool_of_one) as house:
        clients = {State.PARKED: house.client(), State.QUEUED: house.client()}
        house.until(lambda: house.statistics.queued_now)
        [victim] = [one for one in house.service._hub.drivers if one.connection.state is where]

        real = Connection.abort

        def broken(connection: Connection, now: float) -> None:
            if connection is victim.connection:
                message = "on purpose"
                raise RuntimeError(message)
            real(connection, now)

        with monkeypatch.context() as patch:
            patch.setattr(Connection, "abort", broken)
            victim._failed(RuntimeError("on purpose"), 0)
        assert victim not in house.service._hub.drivers
        assert victim.place not in house.service._hub.jobs.waiting
        assert len(house.service._hub.wait_fds) == (1 if where is State.QUEUED else 0)
        victim.connection.abort(0)
        clients[where].close()
        house.clients.remove(clients[where])
        house.finish(pool_of_one)


# The bound of a server


def test_the_pool_stays_for_jobs_of_others(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is left behind, or of another server on this thread, must find its pool when it ends."""
    with engine_shim.ManualEngine() as manual:
        server = Server(make_context(identity, manual), Echo, port=0, async_jobs=2)
        with House(identity, manual) as other:
            other.client()
            real = tlsserver.service.Service.close

            def close(service: tlsserver.service.Service) -> None:
                if service is not other.service:
                    other.until(lambda: manual.pending)
                real(service)

            monkeypatch.setattr(tlsserver.service.Service, "close", close)
            server.run(started=lambda: server.stop(0))
            other.finish(manual)
        engine_shim.cleanup_thread()


def test_a_server_bounds_the_jobs_of_its_thread(identity: Identity) -> None:
    with (
        engine_shim.LatencyEngine(0.02) as engine,
        Server(make_context(identity, engine), Echo, port=0, async_jobs=3) as server,
    ):
        clients = [Client(server.address, client_context(identity.ca)) for _ in range(12)]
        while waiting := [client for client in clients if not client.is_connected]:
            for client in waiting:
                client.step()
            readable([client.socket.fileno() for client in waiting], 0 if waiting[0].is_connected else PATIENCE)
        for client in clients:
            client.close()
        assert server.statistics().parked_max == 3


def test_the_pool_is_freed_where_the_loop_ran(context: TLSContext, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(engine_shim, "init_thread", lambda *args: calls.append((threading.get_ident(), "init", *args)))
    monkeypatch.setattr(engine_shim, "cleanup_thread", lambda: calls.append((threading.get_ident(), "cleanup")))
    with Server(context, Echo, port=0, async_jobs=5):
        pass
    [(first, *init), (last, *cleanup)] = calls
    assert (init, cleanup) == (["init", 5, 0], ["cleanup"])
    assert first == last != threading.get_ident()


def test_without_a_bound_the_pool_is_openssls(context: TLSContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("init_thread", "cleanup_thread"):
        monkeypatch.setattr(engine_shim, name, lambda *_: pytest.fail("nobody asked for it"))
    with Server(context, Echo, port=0):
        pass


def start_and_stop(server: Server) -> None:
    server.start()
    server.stop()


SERVE: dict[str, Callable[[Server], None]] = {"run": Server.run, "start": start_and_stop}


@pytest.mark.parametrize("how", SERVE)
def test_a_pool_that_cannot_be_had(context: TLSContext, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        message = "a job is paused on this thread"
        raise engine_shim.BusyError(message)

    monkeypatch.setattr(engine_shim, "init_thread", refuse)
    server = Server(context, Echo, port=0, async_jobs=5)
    with pytest.raises(ConfigurationError, match=r"^async_jobs=5 cannot be had here: a job is paused [^\n]*$"):
        SERVE[how](server)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)
