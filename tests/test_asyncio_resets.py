"""A client's last data and its reset that come together: the end is told, and why, on both loops."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from helpers_server import client_context, make_context

from tlsserver import asyncio as tls
from tlsserver.errors import PeerLeftError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from support.certificates import Certificates, Identity

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
PATIENCE = 20.0


class Site(asyncio.Protocol):
    """Holds the loop up until its client has left, and answers then."""

    def __init__(self, lost: asyncio.Future[BaseException | None]) -> None:
        self.lost = lost
        self.asked, self.gone = threading.Event(), threading.Event()
        self.received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(b"answer to " + data)
        if data == b"leave":
            self.asked.set()
            assert self.gone.wait(PATIENCE)
            self.write_on()

    def write_on(self) -> None:
        """What the client answers with a reset."""

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


class WritesTwice(Site):
    """Writes again when the reset is there, so that it is the write that meets it."""

    def write_on(self) -> None:
        self.transport.write(b"x" * 20_000)  # more than is held: it goes out at once
        self.transport.write(b"y" * 20_000)


def leave(address: tuple[str, int], ours: ssl.SSLContext, site: Site) -> None:
    """Send, close with the answer unread, and let the server go on."""
    client = ours.wrap_socket(socket.create_connection(address, PATIENCE), server_hostname="localhost")
    client.sendall(b"hello")
    assert client.recv(100) == b"answer to hello"
    client.sendall(b"leave")
    assert site.asked.wait(PATIENCE)
    client.sendall(b"last")
    socket.socket.shutdown(client, socket.SHUT_RDWR)
    client.close()
    site.gone.set()


@pytest.fixture(scope="module")
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", [Site, WritesTwice])
@pytest.mark.parametrize("name", LOOPS)
def test_the_end_is_told(name: str, kind: type[Site], version: str, identity: Identity) -> None:
    loop = LOOPS[name]()

    async def main() -> None:
        site = kind(loop.create_future())
        context = make_context(identity, min_version=version, max_version=version)
        server = await tls.create_server(loop, lambda: site, "127.0.0.1", 0, ssl=context)
        address = server.sockets[0].getsockname()
        client = threading.Thread(target=leave, args=(address, client_context(identity.ca), site))
        client.start()
        error = await asyncio.wait_for(site.lost, PATIENCE)
        client.join()
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)
        assert error is None or isinstance(error, PeerLeftError), error
        assert site.received.startswith(b"helloleave")

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
