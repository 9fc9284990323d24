"""Loops of asyncio, and servers and clients that live on one of them, in the test's own thread.

The clients are those of the standard library: another OpenSSL than the one under test, and another driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

import tlsserver.asyncio as tls_asyncio
from support.leaks import PATIENCE
from support.python_client import VERSIONS as SSL_VERSIONS
from tlsserver import TLSContext
from tlsserver.asyncio.home import Home
from tlsserver.client_context import ClientContext

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from typing_extensions import Self

    from engine_shim import Engine
    from support.certificates import Identity
    from tlsserver.asyncio import Server
    from tlsserver.stats import Statistics

__all__ = ["LOOPS", "VERSIONS", "Echo", "Records", "Site", "Told", "home", "new_loop", "run", "turns", "until"]

Got = TypeVar("Got")

VERSIONS = ("1.2", "1.3")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


def _warm_up() -> None:
    """Have uvloop start its threads, which look names up and never end, before any test counts threads."""
    loop = uvloop.new_event_loop()
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 0))
    loop.close()


_warm_up()


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make a loop whose ``ssl=`` takes our contexts."""
    return tls_asyncio.loop_factory(LOOPS[name])()


def run(name: str, main: Callable[[], Coroutine[Any, Any, Got]]) -> Got:
    """Run a coroutine function on a loop of its own, within bounds, and close the loop.

    What goes wrong in callbacks fails the test, unless the test has set a handler of its own.
    """
    loop = new_loop(name)
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        asyncio.set_event_loop(loop)
        got = loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert not failures, failures
    return got


async def turns(count: int = 1) -> None:
    """Let iterations of the loop pass; what is in flight on the loopback needs a moment of the kernel's, too."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        passed = loop.create_future()
        timer = loop.call_later(0.001, passed.set_result, None)
        try:
            await passed
        finally:
            timer.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Let iterations of the loop pass until it holds."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "it did not come to that"
        await turns()


def home() -> Home:
    """Give what the TLS connections of the running loop share."""
    found = getattr(asyncio.get_running_loop(), "_tlsserver_home")  # noqa: B009 - no attribute that types know
    assert isinstance(found, Home)
    return found


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Told(asyncio.Protocol):
    """Remembers what it is told, in order; ``data_received`` is gathered in ``received``."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.received = b""
        self.keeps_open = False
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost" if error is None else error)
        self.lost.set_result(None)


def client_context(ca: Path, version: str | None = None) -> ssl.SSLContext:
    """Make a context of the standard library that trusts one authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if version is not None:
        context.minimum_version = context.maximum_version = SSL_VERSIONS[version]
    return context


def server_context(identity: Identity, engine: Engine | None = None, **options: Any) -> TLSContext:
    """Make a server's context; with an engine the key's operations run there."""
    return TLSContext(identity.cert, identity.key if engine is None else engine.load_key(identity.key), **options)


class Site:
    """A server on the running loop, and its clients; an async context manager, after which nothing is open.

    Args:
        identity: Of the server.
        factory: Of its protocols; the ones made are in `protocols`.
        engine: Of its key.
        version: The clients'.
        context: Instead of one that is made of identity and engine.
        options: Of `tlsserver.asyncio.create_server`.
    """

    server: Server
    port: int

    def __init__(
        self,
        identity: Identity,
        factory: Callable[[], asyncio.BaseProtocol] = Echo,
        *,
        engine: Engine | None = None,
        version: str | None = None,
        context: Any = None,
        **options: Any,
    ) -> None:
        self.identity = identity
        self.version = version
        self.client = client_context(identity.ca, version)
        self.protocols: list[Any] = []
        self._factory = factory
        self._context = server_context(identity, engine) if context is None else context
        self._options = options
        self._writers: list[asyncio.StreamWriter] = []

    def _make(self) -> asyncio.BaseProtocol:
        made = self._factory()
        self.protocols.append(made)
        return made

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        options = {"host": "127.0.0.1", "port": 0, **self._options}
        self.server = await tls_asyncio.create_server(loop, self._make, ssl=self._context, **options)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.server.abort_clients()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.wait_for(self.server.wait_closed(), PATIENCE)
        await turns(3)  # the clients' transports close their sockets

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def numbers(self) -> Statistics:
        return self.server.statistics()

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect a client of the standard library, on this loop."""
        options = {"ssl": self.client, "server_hostname": "localhost", **options}
        reader, writer = await asyncio.open_connection(*self.address, **options)
        self._writers.append(writer)
        return reader, writer

    async def open(self) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
        """The same; give the server's protocol as well."""
        before = len(self.protocols)
        reader, writer = await self.connect()
        await until(lambda: len(self.protocols) > before)
        return self.protocols[before], reader, writer

    async def raw(self, data: bytes = b"") -> socket.socket:
        """Connect, without TLS, and send something; the caller closes it."""
        sock = socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, self.address)
            await loop.sock_sendall(sock, data)
        except BaseException:
            sock.close()
            raise
        return sock

    def hello(self) -> bytes:
        """Make a ClientHello."""
        outgoing = ssl.MemoryBIO()
        tls = self.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        return outgoing.read()

    def own_client(self, **options: Any) -> ClientContext:
        """Make a client's context of ours."""
        versions = {} if self.version is None else {"min_version": self.version, "max_version": self.version}
        return ClientContext(ca_certs=self.identity.ca, **{**versions, **options})


class Records:
    """A client in memory over a plain socket, which sees the records of the server's stream.

    Args:
        site: Where to connect.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = site.client.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.sizes: list[int] = []  # of the records of application data that came, as they lie on the wire
        self._raw = b""

    async def __aenter__(self) -> Self:
        self.sock = await self._site.raw()
        await self._until(self.tls.do_handshake)
        await self.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def _until(self, call: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return call(*args)
            await self._exchange(loop)

    async def _exchange(self, loop: asyncio.AbstractEventLoop) -> None:
        await loop.sock_sendall(self.sock, self._out.read())
        data = await loop.sock_recv(self.sock, 1 << 16)
        if data:
            self._in.write(data)
            self._count(data)
        else:
            self._in.write_eof()

    def _count(self, data: bytes) -> None:
        self._raw += data
        while len(self._raw) >= 5 and len(self._raw) >= 5 + int.from_bytes(self._raw[3:5], "big"):
            length = int.from_bytes(self._raw[3:5], "big")
            if self._raw[0] == 23:
                self.sizes.append(length)
            self._raw = self._raw[5 + length :]

    async def flush(self) -> None:
        """Send what OpenSSL has to say."""
        await asyncio.get_running_loop().sock_sendall(self.sock, self._out.read())

    async def send(self, data: bytes) -> None:
        """Send application data."""
        self.tls.write(data)
        await self.flush()

    async def say_goodbye(self) -> None:
        """Send close_notify, without waiting for the answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()

    async def read(self, size: int) -> bytes:
        """Read so many bytes; fewer at the end of the stream."""
        got = bytearray()
        while len(got) < size:
            piece = await self._until(self.tls.read, size - len(got))
            if not piece:
                break
            got += piece
        return bytes(got)
