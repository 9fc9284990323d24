"""What a protocol is told around the ends of a handshake and of a stream, as uvloop's own tests of TLS have it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from helpers_server import client_context, make_context

from tlsserver import asyncio as tls

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from support.certificates import Identity

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
PATIENCE = 30.0


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def in_loop(main: Coroutine[Any, Any, None]) -> None:
        loop = LOOPS[request.param]()
        try:
            loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
        finally:
            loop.close()

    return in_loop


class Far:
    """A client on a blocking socket whose last flight and first data are one segment."""

    def __init__(self, address: tuple[str, int], identity: Identity) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(identity.ca)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.socket.sendall(self._outgoing.read())

    def _do(self, call: Callable[[], Any]) -> Any:
        while True:
            with suppress(ssl.SSLWantReadError):
                return call()
            self._flush()
            self._incoming.write(self.socket.recv(65536))

    def ask(self, data: bytes) -> bytes:
        self._do(self._tls.do_handshake)
        self._tls.write(data)
        self._flush()
        return bytes(self._do(lambda: self._tls.read(1024)))


def test_who_awaits_start_tls_is_first(run: Callable[[Coroutine[Any, Any, None]], None], identity: Identity) -> None:
    class Upgrading(asyncio.Protocol):
        """Answers on the transport that it knows; TLS begins when the client has asked for it."""

        task: asyncio.Task[None] | None = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        async def upgrade(self) -> None:
            loop = asyncio.get_running_loop()
            self.transport = await tls.start_tls(loop, self.transport, self, make_context(identity), server_side=True)

        def data_received(self, data: bytes) -> None:
            if self.task is None:
                self.transport.pause_reading()  # the ClientHello is for whoever comes next
                self.transport.write(b"go")
                self.task = asyncio.ensure_future(self.upgrade())
            else:
                self.transport.write(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Upgrading()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        far = Far(server.sockets[0].getsockname(), identity)
        with far.socket:
            far.socket.sendall(b"S")
            assert await asyncio.to_thread(far.socket.recv, 2) == b"go"
            assert await asyncio.to_thread(far.ask, b"hello") == b"hello"
        protocol.transport.abort()
        server.close()

    run(main())


def test_protocol_that_gives_buffers_and_does_not_say_so(
    run: Callable[[Coroutine[Any, Any, None]], None], identity: Identity
) -> None:
    class Giving(asyncio.BaseProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def get_buffer(self, _size: int) -> bytearray:
            self.buffer = bytearray(3)
            return self.buffer

        def buffer_updated(self, size: int) -> None:
            self.transport.write(self.buffer[:size])

        def eof_received(self) -> None: ...

    async def main() -> None:
        server = await tls.create_server(asyncio.get_running_loop(), Giving, "127.0.0.1", 0, ssl=make_context(identity))
        far = Far(server.sockets[0].getsockname(), identity)
        with far.socket:
            assert await asyncio.to_thread(far.ask, b"abc") == b"abc"
        server.close()

    run(main())


def test_writing_to_who_has_left(run: Callable[[Coroutine[Any, Any, None]], None], identity: Identity) -> None:
    class Late(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def eof_received(self) -> bool:
            asyncio.get_running_loop().call_soon(self.transport.write, b"too late")
            return True

        def connection_lost(self, error: Exception | None) -> None:
            losses.append(error)
            is_lost.set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await tls.create_server(loop, Late, "127.0.0.1", 0, ssl=make_context(identity))
        far = Far(server.sockets[0].getsockname(), identity)
        with far.socket:
            await asyncio.to_thread(far.ask, b"x")
        await is_lost.wait()
        assert losses == [None]  # a stream that is cut off is at its end, whatever eof_received() says
        server.close()

    losses: list[Exception | None] = []
    is_lost = asyncio.Event()
    run(main())
