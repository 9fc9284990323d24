"""Real handshakes on a real loop, in one thread: every engine, and clients that leave at the worst moment."""

from __future__ import annotations

import functools
import gc
import logging
import selectors
import socket
import ssl
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Client, House, make_context

import engine_shim
from tlsserver.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates, Identity
    from support.running import Clock

pytestmark = pytest.mark.usefixtures("nothing_left")

ENGINES: dict[str, Callable[[], engine_shim.Engine | None]] = {
    "off": lambda: None,
    "threads": lambda: engine_shim.ThreadEngine(threads=1),
    "latency": lambda: engine_shim.LatencyEngine(0.01),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[engine_shim.Engine | None]:
    made = ENGINES[request.param]()
    yield made
    if made is not None:
        made.close()


def has_received(client: Client, size: int) -> bool:
    return len(client.received) == size


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_echo(identity: Identity, engine: engine_shim.Engine | None, version: str) -> None:
    with House(identity, engine, version=version) as house:
        client = house.connected()
        client.send(b"hello")
        house.until(lambda: client.received == b"HELLO")
        client.say_goodbye()
        house.until(house.is_empty)
        statistics = house.statistics
        assert statistics.handshakes_completed == statistics.connections_accepted == 1
        assert statistics.handshakes_parked == statistics.parked_max == (engine is not None)
        assert statistics.ops_performed == (engine is not None)
        assert (statistics.bytes_received, statistics.bytes_sent) == (5, 5)
        house.until(lambda: client.is_ended or client.is_cut)


@pytest.mark.parametrize("kind", ["rsa2048", "ed25519"])
def test_other_keys(certificates: Certificates, kind: str) -> None:
    with engine_shim.ThreadEngine() as engine, House(certificates[kind], engine) as house:
        house.connected()
        assert house.statistics.handshakes_parked == 1


@pytest.mark.parametrize("selector", [selectors.DefaultSelector, selectors.PollSelector, "selectors2", "poll"])
def test_any_selector(identity: Identity, selector: Any, manual: engine_shim.ManualEngine) -> None:
    made = selector if isinstance(selector, str) else selector()
    with House(identity, manual, selector=made) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: client.is_connected)


def test_many_at_once_in_any_order(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual) as house:
        clients = [house.client() for _ in range(20)]
        house.until(lambda: manual.pending == 20)
        assert house.statistics.parked_now == house.statistics.parked_max == 20
        while manual.pending:
            manual.perform(manual.pending // 2)
        house.until(lambda: all(client.is_connected for client in clients))
        assert house.statistics.parked_now == 0
        assert house.statistics.ops_performed == 20


def test_others_are_served_while_one_is_parked(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual) as house:
        first = house.client()
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: first.is_connected)
        second = house.client()
        house.until(lambda: manual.pending)
        for number in range(10):
            first.send(b"%d" % number)
            house.until(functools.partial(has_received, first, number + 1))
        assert not second.is_connected
        manual.perform()
        house.until(lambda: second.is_connected)


def test_a_wake_up_for_nothing_changes_nothing(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        for _ in range(5):
            manual.wake()
            house.quiet()
            assert house.statistics.parked_now == 1
        manual.perform()
        house.until(lambda: client.is_connected)
        assert house.statistics.park_seconds.count == 1


def test_a_failing_engine_is_said_so(
    identity: Identity, manual: engine_shim.ManualEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with House(identity, manual) as house, caplog.at_level(logging.INFO):
        client = house.client()
        house.until(lambda: manual.pending)
        manual.fail()
        house.until(house.is_empty)
        house.until(lambda: client.error)
        assert house.statistics.handshakes_failed == 1
    [message] = [message for message in caplog.messages if "handshake" in message]
    assert "engine" in message


def test_a_closed_connection_does_not_wait_for_the_garbage_collector(identity: Identity) -> None:
    """An SSL takes tens of KB."""
    with House(identity) as house:
        client = house.connected()
        [driver] = house.service._hub.drivers
        number = id(driver.connection)
        ssl = weakref.ref(driver.connection._wire._tls)  # type: ignore[attr-defined]
        del driver
        gc.disable()
        try:
            client.close()
            house.until(house.is_empty)
            assert ssl() is None
            assert not [one for one in gc.get_objects() if type(one) is Connection and id(one) == number]
        finally:
            gc.enable()


# Clients that leave while parked

LEAVE = {"fin": lambda client: client.close(), "reset": lambda client: client.reset()}


@pytest.mark.parametrize("how", LEAVE)
def test_a_client_that_leaves_while_parked(identity: Identity, manual: engine_shim.ManualEngine, how: str) -> None:
    with House(identity, manual) as house:
        stays, leaves = house.client(), house.client()
        house.until(lambda: manual.pending == 2)
        LEAVE[how](leaves)
        house.until(lambda: house.statistics.connections_open == 1)
        assert house.statistics.handshakes_failed == house.statistics.ops_cancelled == 1
        while manual.pending:
            manual.perform()
        house.until(lambda: stays.is_connected)


@pytest.mark.parametrize("how", LEAVE)
def test_a_client_that_leaves_while_its_op_is_performed(
    identity: Identity, manual: engine_shim.ManualEngine, how: str
) -> None:
    with House(identity, manual) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        manual.begin()
        LEAVE[how](client)
        house.until(house.is_empty)
        while manual.begun:
            manual.deliver()
        house.quiet()
        assert house.statistics.handshakes_failed == 1


def test_silence_until_the_deadline(identity: Identity, manual: engine_shim.ManualEngine, clock: Clock) -> None:
    with House(identity, manual, timeout_handshake=10) as house:
        house.client()
        house.until(lambda: manual.pending)
        clock.advance(11)
        house.until(house.is_empty)
        assert house.statistics.handshakes_failed == 1


def test_bytes_do_not_hide_an_end_that_came_with_them(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        client.socket.send(b"\x15\x03\x03\x00\x02\x02\x28")
        client.close()
        house.until(house.is_empty)
        assert house.statistics.ops_cancelled == 1


def test_bytes_before_the_end_leave_it_to_the_deadline(
    identity: Identity, manual: engine_shim.ManualEngine, clock: Clock
) -> None:
    with House(identity, manual, timeout_handshake=10) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        client.socket.send(b"\x15\x03\x03\x00\x02\x02\x28")
        [driver] = house.service._hub.drivers
        house.until(lambda: not driver.connection.watch().read)
        client.close()
        house.quiet()
        assert house.statistics.parked_now == 1
        clock.advance(11)
        house.until(house.is_empty)


def test_the_server_closes_while_parked(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    house = House(identity, manual)
    for _ in range(3):
        house.client()
    house.until(lambda: manual.pending == 3)
    house.close()
    assert house.statistics.connections_open == house.statistics.parked_now == 0
    assert house.statistics.ops_cancelled == 3


# Peers that do not play along


def test_a_client_that_connects_and_leaves(identity: Identity) -> None:
    with House(identity) as house:
        house.client().close()
        house.client().reset()
        house.until(lambda: house.statistics.handshakes_failed == 2)
        assert house.is_empty()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "wrong version number"),
        (b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff", ""),
        (bytes(100), ""),
        (b"\x16\x03\x01\xff\xff" + bytes(200), ""),
    ],
)
def test_garbage(identity: Identity, sent: bytes, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with House(identity) as house, caplog.at_level(logging.INFO):
        client = house.client()
        client.socket.send(sent)
        house.until(lambda: house.is_empty() and house.statistics.handshakes_failed)
        assert house.connected()
    [message] = [message for message in caplog.messages if message.startswith("handshake with 127.0.0.1:")]
    assert reason in message


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /x HTTP/1.0\r\n\r\n" + bytes(100_000),
        b"CONNECT a:1 HTTP/1.1\r\n",
    ],
)
def test_plain_http(identity: Identity, request_: bytes) -> None:
    with House(identity) as house, socket.create_connection(house.server.address) as client:
        client.sendall(request_)
        house.until(lambda: house.statistics.handshakes_failed)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert client.recv(65536) == b""
        client.shutdown(socket.SHUT_WR)
        house.until(house.is_empty)


def test_a_client_that_refuses_the_certificate(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    with House(identity) as house, caplog.at_level(logging.DEBUG):
        house.client_context = ssl.create_default_context()
        client = house.client()
        house.until(lambda: client.error and house.is_empty())
    assert "the peer sent an alert" in caplog.text


def test_no_common_version(identity: Identity) -> None:
    house = House(identity, version="1.2")
    house.server.swap_context(make_context(identity, min_version="1.3"))
    with house:
        client = house.client()
        house.until(lambda: client.error and house.is_empty())
        assert "alert protocol version" in str(client.error), "our alert was lost"
        assert house.statistics.handshakes_failed == 1


def test_numbers_of_engines_that_were_closed_are_kept(identity: Identity) -> None:
    with House(identity, engine_shim.ThreadEngine(1)) as house:
        for number in range(1, 5):
            house.connected().say_goodbye()
            house.until(house.is_empty)
            assert house.statistics.ops_performed == number
            last = house.server._context.engine
            assert last is not None
            house.server.swap_context(make_context(identity, engine_shim.ThreadEngine(1)))
            last.close()
        (_, newest), _ = house.server._engines._known
        newest.close()
        assert house.server._context.engine is newest


def test_an_engine_that_comes_back_closed_is_not_counted_twice(identity: Identity) -> None:
    with House(identity, engine_shim.ThreadEngine(1)) as house:
        first = house.server._context
        house.connected().say_goodbye()
        house.until(house.is_empty)
        assert first.engine is not None
        first.engine.close()
        house.server.swap_context(make_context(identity))
        house.server.swap_context(make_context(identity, engine := engine_shim.ThreadEngine(1)))
        house.server.swap_context(first)
        assert house.statistics.ops_performed == 1
        engine.close()
