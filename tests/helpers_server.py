"""A server and its clients in one thread: the test turns the loop itself, so nothing happens unasked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import engine_shim
from support import leaks
from tlsserver import Server, TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from engine_shim import Engine, ManualEngine
    from support.certificates import Identity
    from tlsserver.selector import SelectorLike
    from tlsserver.stats import Statistics

# Long enough for the slowest machine; a test that reaches it has failed.
PATIENCE = 30.0

SSL_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Echo(asyncio.Protocol):
    """Sends back what it gets, in upper case."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())  # type: ignore[attr-defined]


def make_context(identity: Identity, engine: Engine | None = None, **options: Any) -> TLSContext:
    """Make a server's context; with an engine the key's operations run there."""
    key = identity.key if engine is None else engine.load_key(identity.key)
    return TLSContext(certificate=identity.cert, key=key, **options)


def client_context(trusted: Path, version: str | None = None) -> ssl.SSLContext:
    """Make a client's context that trusts one authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted)
    if version is not None:
        context.minimum_version = context.maximum_version = SSL_VERSIONS[version]
    return context


class Client:
    """A TLS client that never blocks: `step` takes what has come, and answers."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost", session=session)
        self.is_connected = False
        self.received = b""
        self.is_ended = False  # the server's close_notify was read
        self.is_cut = False  # the TCP stream has ended, or was reset
        self.error: ssl.SSLError | None = None

    def step(self) -> None:
        """Take what has come, go on with the handshake or read, and send what that gave."""
        self._take()
        try:
            if not self.is_connected:
                self.tls.do_handshake()
                self.is_connected = True
            while data := self.tls.read(65536):
                self.received += data
            self.is_ended = True
        except (ssl.SSLWantReadError, ssl.SSLSyscallError, BlockingIOError):
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLError as error:
            self.error = error
        self.flush()

    def _take(self) -> None:
        try:
            while data := self.socket.recv(65536):
                self._incoming.write(data)
            self.is_cut = True
            self._incoming.write_eof()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.is_cut = True

    def flush(self) -> None:
        """Send what OpenSSL has to say."""
        data = self._outgoing.read()
        try:
            while data:
                data = data[self.socket.send(data) :]
        except (BlockingIOError, ConnectionError):
            assert self.is_cut, "the socket does not take what a test sends"

    def send(self, data: bytes) -> None:
        """Send application data."""
        self.tls.write(data)
        self.flush()

    def say_goodbye(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()

    def reset(self) -> None:
        """Leave with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class House:
    """A server whose loop the test turns by hand, and its clients."""

    def __init__(
        self,
        identity: Identity,
        engine: Engine | None = None,
        *,
        version: str | None = None,
        factory: Callable[[], asyncio.BaseProtocol] = Echo,
        selector: SelectorLike | str | None = None,
        **options: Any,
    ) -> None:
        self.server = Server(make_context(identity, engine), factory, **{"port": 0, "selector": selector, **options})
        self.server.listen()
        assert self.server._service is not None
        self.service = self.server._service
        self.reactor = self.service.reactor
        self.client_context = client_context(identity.ca, version)
        self.clients: list[Client] = []

    @property
    def statistics(self) -> Statistics:
        return self.server.statistics()

    def client(self) -> Client:
        """Connect."""
        made = Client(self.server.address, self.client_context)
        self.clients.append(made)
        return made

    def connected(self) -> Client:
        """Connect, and finish the handshake."""
        made = self.client()
        self.until(lambda: made.is_connected)
        return made

    def is_empty(self) -> bool:
        """Whether no connection is left."""
        statistics, hub = self.statistics, self.service._hub
        open_now = statistics.connections_open, statistics.handshakes_in_progress
        jobs_now = statistics.parked_now, statistics.draining_now
        return not any((*open_now, *jobs_now, len(hub.drivers), len(hub.wait_fds)))

    def turn(self, wait: float = 0) -> None:
        """Turn the loop once, and let every client take a step."""
        for client in self.clients:
            if client.socket.fileno() >= 0:
                client.step()
        self.reactor.run_turn(wait)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until it holds."""
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, "nothing came of it"
            self.turn(0.001)

    def finish(self, manual: ManualEngine) -> None:
        """Perform whatever waits, until every client is connected."""

        def done() -> bool:
            while manual.pending:
                manual.perform()
            return all(client.is_connected for client in self.clients)

        self.until(done)

    def quiet(self, turns: int = 20) -> None:
        """Turn as often as it takes for anything in flight on the loopback to settle."""
        for _ in range(turns):
            self.turn()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_nothing_left() -> Iterator[None]:
    """Body of a fixture: no job, op, descriptor or thread is left behind; the shim's pool of eventfds may grow."""
    before = leaks.holdings()
    yield
    after = leaks.settled(before)
    counters = engine_shim.counters()
    assert counters.jobs_started == counters.jobs_finished + counters.jobs_abandoned
    assert counters.ops_alive == 0
    pooled = {fd: what for fd, what in after.descriptors.items() if what.endswith("[eventfd]")}
    assert len(pooled) == counters.wait_fds_open
    kept = {fd: what for fd, what in after.descriptors.items() if fd not in pooled or fd in before.descriptors}
    complaint = leaks.complaint(before, after._replace(descriptors=kept))
    assert not complaint, complaint
