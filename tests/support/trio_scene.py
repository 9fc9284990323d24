"""A trio listener and its clients in one run: the server's end of every connection is the test's."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from helpers_server import client_context, make_context

from engine_shim import ManualEngine
from tlsserver.trio import TLSListener, TLSStream, open_tls_listeners, task_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.certificates import Certificates, Identity
    from tlsserver.session import ContextLike

PATIENCE = 30.0


class Scene:
    """A listener, and clients that come when they are told to.

    Attributes:
        listener: Where they come.
        address: The same as a socket's address.
    """

    def __init__(self, listener: TLSListener, identity: Identity, version: str | None) -> None:
        self.listener = listener
        self.address: tuple[str, int] = listener.transport_listener.socket.getsockname()
        self.client = client_context(identity.ca, version)
        self.client.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # it shall tell a cut from an end

    async def connect(self) -> tuple[TLSStream, trio.SSLStream[trio.SocketStream]]:
        """Open a connection; nobody has said anything."""
        far = await trio.open_tcp_stream(*self.address)
        return await self.listener.accept(), trio.SSLStream(far, self.client, server_hostname="localhost")

    async def open(self) -> tuple[TLSStream, trio.SSLStream[trio.SocketStream]]:
        """Open a connection whose handshake is done."""
        near, far = await self.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.do_handshake)
            nursery.start_soon(far.do_handshake)
        return near, far

    async def say(self, data: bytes) -> tuple[TLSStream, socket.socket]:
        """Open a connection whose client says something, and no more."""
        far = socket.create_connection(self.address)
        far.sendall(data)
        return await self.listener.accept(), far

    def hello(self) -> bytes:
        """Make a ClientHello."""
        outgoing = ssl.MemoryBIO()
        client = self.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            return outgoing.read()
        raise AssertionError("nobody has answered")


@asynccontextmanager
async def scene(
    identity: Identity, context: ContextLike, version: str | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """Listen on any free port, no longer than `PATIENCE`."""
    with trio.fail_after(PATIENCE):
        (listener,) = await open_tls_listeners(0, context, host="127.0.0.1", **options)
        async with listener:
            yield Scene(listener, identity, version)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a turn of the connections' reactor after which it holds."""
    while not condition():
        turned = trio.Event()
        task_loop().reactor.call_later(0.001, turned.set)
        await turned.wait()


async def until_parked(count: int = 1) -> None:
    """Wait until so many handshakes are parked."""
    await until(lambda: task_loop().counters.parked_now == count)


async def refused(call: Callable[[], Awaitable[object]], kind: type[Exception]) -> Exception:
    """Return what a call raises."""
    try:
        await call()
    except kind as error:
        return error
    raise AssertionError(f"{call} has worked")


async def echo(stream: TLSStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def ask(far: trio.SSLStream[trio.SocketStream], data: bytes = b"ping") -> bytes:
    """Send, and receive as much."""
    await far.send_all(data)
    got = b""
    while len(got) < len(data):
        got += await far.receive_some()
    return got


async def echo_and_close(stream: TLSStream) -> None:
    async with stream:
        await echo(stream)


async def visit(house: Scene) -> None:
    stream = await trio.open_tcp_stream(*house.address)
    far = trio.SSLStream(stream, house.client, server_hostname="localhost")
    assert await ask(far) == b"ping"
    await far.aclose()


def fill_pool(certificates: Certificates) -> None:
    """The pool of wait fds keeps as many as were ever wanted at once: that is no leak."""
    identity = certificates["p256"]

    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            ends = [end for _ in range(3) for end in await house.say(house.hello())]
            await until_parked(3)
            for end in ends:
                await end.aclose() if isinstance(end, TLSStream) else end.close()

    with ManualEngine() as engine:
        trio.run(main, engine)
