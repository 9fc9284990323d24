"""Clients of the servers of others: Python's ssl, which reads and writes in turn."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from support.clients import Target, client_hello
from support.running import PATIENCE

if TYPE_CHECKING:
    from typing import Protocol

    from support.certificates import Identity

    class Site(Protocol):
        """A server."""

        port: int

        @property
        def address(self) -> tuple[str, int]:
            """Where it listens."""


def client(identity: Identity, version: str | None = None) -> ssl.SSLContext:
    """Make a context that trusts the tests' authority."""
    context = ssl.create_default_context(cafile=str(identity.ca))
    if version is not None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
    return context


def connect(site: Site, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Shake hands; the caller closes it."""
    sock = socket.create_connection(site.address, PATIENCE)
    try:
        return context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def arrive(site: Site, identity: Identity, version: str) -> socket.socket:
    """Send a ClientHello and no more; the caller closes it."""
    sock = socket.create_connection(site.address, PATIENCE)
    sock.sendall(client_hello(Target(site.port, identity, version)))
    return sock


def echoed(site: Site, context: ssl.SSLContext) -> bytes:
    """Say hello to a server that sends back what it gets; return the answer."""
    with connect(site, context) as tls:
        tls.sendall(b"hello")
        return tls.recv(10)


def read(tls: ssl.SSLSocket, size: int) -> bytes:
    """Read so many bytes."""
    got = bytearray()
    while len(got) < size:
        part = tls.recv(1 << 16)
        assert part
        got += part
    return bytes(got)
