"""Threads, signals, forks, and calls that do not fit: the life of a server as its user sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Client, Echo, House, client_context, make_context

from tlsserver import Server
from tlsserver.config import ServerConfig, ServerOptions
from tlsserver.errors import AddressError, ConfigurationError, ForkedProcessError, ServerStateError

if TYPE_CHECKING:
    import asyncio

    from support.certificates import Identity
    from tlsserver import TLSContext

pytestmark = pytest.mark.usefixtures("nothing_left")

# Python 3.12 and later warn of any fork with threads, those of other tests' engines included.
MANY_THREADS = "ignore:.*multi-threaded:DeprecationWarning"


@pytest.fixture
def context(identity: Identity) -> TLSContext:
    return make_context(identity)


def ask(server: Server, identity: Identity, request: bytes = b"hello") -> bytes:
    """One blocking question over a connection of its own."""
    trusting = client_context(identity.ca)
    with socket.create_connection(server.address) as raw, trusting.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(request)
        answer = tls.recv(1000)
        tls.unwrap().close()
        return answer


# Threads


def test_on_a_thread_of_its_own(context: TLSContext, identity: Identity) -> None:
    with Server(context, Echo, port=0) as server:
        assert server.address[0] == "127.0.0.1"
        assert ask(server, identity) == b"HELLO"
        assert server.statistics().handshakes_completed == 1
    assert server.statistics().connections_open == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)
    server.stop()


def test_stop_without_start(context: TLSContext) -> None:
    Server(context, Echo, port=0).stop()
    server = Server(context, Echo, port=0)
    server.listen()
    server.stop()
    server.stop()
    with pytest.raises(ServerStateError, match="serves once"):
        server.start()


def test_it_serves_once(context: TLSContext) -> None:
    with Server(context, Echo, port=0) as server:
        for again in (server.start, server.run):
            with pytest.raises(ServerStateError, match="serves once"):
                again()
    with pytest.raises(ServerStateError, match="serves once"):
        server.start()


def test_a_protocol_may_stop_its_server(context: TLSContext, identity: Identity) -> None:
    class Last(Echo):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            server.stop()

    server = Server(context, Last, port=0)
    server.start()
    assert ask(server, identity) == b"HELLO"
    server.stop()
    assert server._ended.is_set()


def test_many_threads_may_stop_it(context: TLSContext) -> None:
    server = Server(context, Echo, port=0)
    server.start()
    threads = [threading.Thread(target=server.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server._ended.is_set()


def test_what_ends_the_loop_is_told_by_stop(context: TLSContext, identity: Identity) -> None:
    class Fatal(Echo):
        def data_received(self, data: bytes) -> None:
            raise SystemExit(data.decode())

    server = Server(context, Fatal, port=0)
    server.start()
    with contextlib.suppress(OSError, ValueError):
        ask(server, identity, b"farewell")
    with pytest.raises(SystemExit, match="farewell"):
        server.stop()
    server.stop()
    assert server.statistics().connections_open == 0


# Calls that do not fit


def test_no_address_before_it_listens(context: TLSContext) -> None:
    with pytest.raises(ServerStateError, match="does not listen yet"):
        _ = Server(context, Echo, port=0).address


def test_a_port_in_use_is_told_by_start_and_run(context: TLSContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for name in ("listen", "start", "run"):
            with pytest.raises(AddressError, match="in use"):
                getattr(Server(context, Echo, port=port), name)()


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"port": -1},
            {"port": 70000},
            {"port": "8443"},
            {"port": True},
            {"host": None},
            {"backlog": 0},
            {"backlog": 1 << 31},
            {"async_jobs": 1 << 31},
        ),
        *(
            {"max_handshakes": 0},
            {"limit_concurrency": 0},
            {"async_jobs": 0},
            {"max_draining": 0},
            {"timeout_handshake": 0},
            {"timeout_handshake": "1"},
        ),
        *({"timeout_idle": -1}, {"timeout_shutdown": float("nan")}, {"timeout_graceful_shutdown": float("inf")}),
        *({"read_budget": 1.5}, {"write_buffer_low": 2, "write_buffer_high": 1}, {"accept_budget": None}),
    ],
)
def test_settings_that_cannot_work(context: TLSContext, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Server(context, Echo, **options)
    assert isinstance(caught.value, ValueError)
    assert next(iter(options)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_as_one_object(context: TLSContext) -> None:
    server = Server(context, Echo, config=ServerConfig(port=0, timeout_graceful_shutdown=0, timeout_idle=None))
    server.listen()
    server.stop()
    with pytest.raises(TypeError, match="not both"):
        Server(context, Echo, config=ServerConfig(), port=1)
    with pytest.raises(TypeError, match="colour"):
        Server(context, Echo, colour="blue")  # type: ignore[call-arg]


def test_an_unknown_selector_leaves_no_socket(context: TLSContext) -> None:
    server = Server(context, Echo, port=0, selector="abacus")
    with pytest.raises(ConfigurationError, match="unknown selector 'abacus'"):
        server.listen()


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_returns(context: TLSContext, identity: Identity, number: int) -> None:
    server = Server(context, Echo, port=0)
    server.listen()
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    answers: list[bytes] = []

    def client() -> None:
        try:
            answers.append(ask(server, identity))
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=client)
    thread.start()
    server.run()
    thread.join()
    assert answers == [b"HELLO"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_signal_stops_at_once(identity: Identity) -> None:
    class Busy(Echo):
        def close_when_idle(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    house = House(identity, factory=Busy, timeout_graceful_shutdown=1000)
    house.connected()
    house.reactor.call_soon(signal.raise_signal, signal.SIGTERM)
    house.server.run()
    assert house.statistics.connections_open == 0
    house.close()


def test_signals_are_the_main_threads(context: TLSContext) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Server(context, Echo, port=0):
        assert signal.getsignal(signal.SIGTERM) is before


# Forks


def in_child(house: House) -> None:
    """Everything that the child may not do says so in one clear line."""
    transport = Keep.transports[-1]
    with pytest.raises(ForkedProcessError, match="parent process"):
        transport.write(b"from the child")
    for call in (house.server.stop, house.server.listen, house.server.start, house.server.run):
        with pytest.raises(ForkedProcessError, match="parent process"):
            call()
    with pytest.raises(ForkedProcessError, match="parent process"):
        house.reactor.run_turn(0)
    house.server.__exit__(None, None, None)
    house.service.close()


class Keep(Echo):
    """Keeps its transports."""

    transports: list[asyncio.Transport] = []  # noqa: RUF012 - the test's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transports.append(transport)  # type: ignore[arg-type]


@pytest.mark.filterwarnings(MANY_THREADS)
def test_a_forked_child_must_leave_the_connections_alone(identity: Identity) -> None:
    with House(identity, factory=Keep) as house:
        client = house.connected()
        house.quiet()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                in_child(house)
                code = 0
            except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
                os.write(2, f"child: {error!r}\n".encode())
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.send(b"parent")
        house.until(lambda: client.received == b"PARENT")
        assert client.error is None
        assert isinstance(client, Client)


def test_options_are_the_fields_of_the_config() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(ServerConfig)}
    assert {name: str(kind.__forward_arg__) for name, kind in ServerOptions.__annotations__.items()} == fields
