"""Clients that misbehave while their handshake is parked, and crowds of clients that do not say anything."""

from __future__ import annotations

import concurrent.futures
import resource
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from engine_shim import ManualEngine, ThreadEngine
from support.clients import Crowd, client_hello, connect, drain
from support.rough import ALERT, CLOSE_NOTIFY, DATA, WARNING, Bystander, Scene, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity
    from support.running import Clock

VERSIONS = ("1.2", "1.3")
FLOOD = 100_000_000  # bytes: more than any socket buffers
HANDSHAKE_OVER = 11.0  # seconds: past the handshake's deadline


@pytest.fixture
def threads() -> Iterator[ThreadEngine]:
    with ThreadEngine() as engine:
        yield engine


# While parked.


@pytest.fixture
def manual(identity: Identity) -> Iterator[Scene]:
    """A server whose handshakes stay parked until the test says otherwise."""
    with ManualEngine() as engine, Scene(identity, engine) as scene:
        yield scene


def perform_all(scene: Scene) -> None:
    assert isinstance(scene.engine, ManualEngine)
    while scene.engine.pending:
        scene.engine.perform()


@pytest.fixture
def open_one(manual: Scene) -> Iterator[Bystander]:
    """An open connection of the server whose engine is the test's."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        connecting = executor.submit(Bystander, manual.target())
        manual.site.until(lambda numbers: numbers.parked_now == 1)
        perform_all(manual)
        bystander = connecting.result()
    yield bystander
    bystander.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_while_parked(manual: Scene, open_one: Bystander, clock: Clock, version: str) -> None:
    """Nothing is read, so the client is stopped by TCP, and the loop does not spin over the bytes that wait."""
    with connect(manual.site.address) as sock:
        sock.sendall(client_hello(manual.target(version)))
        manual.site.until(lambda numbers: numbers.parked_now == 1)
        sock.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while sent < FLOOD:
                sent += sock.send(record(DATA, bytes(16_000), 0x0303))
        assert sent < FLOOD
        turns = manual.site.turns
        for _ in range(20):
            open_one.ping()
        assert manual.site.turns - turns <= 100
        assert manual.site.statistics().parked_now == 1
        clock.advance(HANDSHAKE_OVER, manual.site)
        manual.site.until(lambda numbers: numbers.connections_open == 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_while_parked_and_then_the_answer(manual: Scene, open_one: Bystander, version: str) -> None:
    """What was sent too early is no TLS: the handshake fails, and nobody else does."""
    with connect(manual.site.address) as sock:
        sock.sendall(client_hello(manual.target(version)))
        manual.site.until(lambda numbers: numbers.parked_now == 1)
        sock.sendall(b"x" * 100_000)
        perform_all(manual)
        drain(sock)
    manual.site.until(lambda numbers: numbers.connections_open == 1)
    open_one.ping()


def test_close_notify_while_parked(manual: Scene, open_one: Bystander) -> None:
    with connect(manual.site.address) as sock:
        sock.sendall(client_hello(manual.target()))
        manual.site.until(lambda numbers: numbers.parked_now == 1)
        sock.sendall(record(ALERT, bytes([WARNING, CLOSE_NOTIFY])))
        manual.site.settle()
        perform_all(manual)
        sock.shutdown(socket.SHUT_WR)
        drain(sock)
    manual.site.until(lambda numbers: numbers.connections_open == 1)
    open_one.ping()


def test_half_close_while_parked(manual: Scene, open_one: Bystander) -> None:
    """A client that will not send its part of the handshake has left: its op is cancelled."""
    with connect(manual.site.address) as sock:
        sock.sendall(client_hello(manual.target()))
        manual.site.until(lambda numbers: numbers.parked_now == 1)
        sock.shutdown(socket.SHUT_WR)
        drain(sock)
    manual.site.until(lambda numbers: numbers.ops_cancelled == 1)
    open_one.ping()


# Crowds.


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Tell how many connections fit: both ends are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 20_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), hard))
    yield min(2_000, (min(most, 20_000) - 200) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_connections_without_a_byte(
    identity: Identity, threads: ThreadEngine, clock: Clock, many_descriptors: int
) -> None:
    with Scene(identity, threads, max_handshakes=many_descriptors + 10) as scene:
        bystander = Bystander(scene.target())
        with Crowd(scene.site.address, many_descriptors) as crowd:
            scene.site.until(lambda numbers: numbers.connections_open == many_descriptors + 1)
            bystander.ping()
            Bystander(scene.target()).close()
            clock.advance(HANDSHAKE_OVER, scene.site)
            crowd.wait_closed()
        bystander.ping()
        bystander.close()
        scene.is_well()


def test_more_than_are_admitted(identity: Identity, threads: ThreadEngine, clock: Clock) -> None:
    """Those that came later wait in the kernel; who is open does not notice; at the deadline the others' turn comes."""
    with Scene(identity, threads, max_handshakes=50) as scene:
        bystander = Bystander(scene.target())
        with Crowd(scene.site.address, 200) as crowd, concurrent.futures.ThreadPoolExecutor(1) as executor:
            scene.site.until(lambda numbers: numbers.handshakes_in_progress == 50)
            late = executor.submit(Bystander, scene.target())
            bystander.ping()
            assert scene.site.statistics().connections_accepted == 51
            for seen in (101, 151, 201):
                clock.advance(HANDSHAKE_OVER, scene.site)
                until_accepted(scene, seen)
            clock.advance(HANDSHAKE_OVER, scene.site)
            late.result().close()
            crowd.wait_closed()
        bystander.ping()
        bystander.close()
        scene.is_well()


def until_accepted(scene: Scene, count: int) -> None:
    scene.site.until(lambda numbers: numbers.connections_accepted >= count)
