"""Clients that ask for a name, and tell whose certificate they got."""

from __future__ import annotations

import hashlib
import queue
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from support.running import PATIENCE
from tlsserver import TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity
    from tlsserver import ClientHelloRequest

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client(ca: Identity, version: str = "1.3") -> ssl.SSLContext:
    """Make a client's context that verifies the chain, but not for which name it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.ca)
    context.minimum_version = context.maximum_version = _VERSIONS[version]
    context.check_hostname = False
    return context


def connect(
    address: tuple[str, int], context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """Shake hands, and have one answer, so that session tickets have come; the caller closes it."""
    sock = socket.create_connection(address, PATIENCE)
    try:
        tls = context.wrap_socket(sock, server_hostname=name, session=session)
        tls.sendall(b"ping")
        assert tls.recv(4) == b"PING"
    except BaseException:
        sock.close()
        raise
    return tls


def served(address: tuple[str, int], context: ssl.SSLContext, name: str | None) -> bytes:
    """Return the digest of the certificate that the name gets."""
    with connect(address, context, name) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").digest()


def digest(identity: Identity) -> bytes:
    """Return the digest of an identity's certificate."""
    der = ssl.PEM_cert_to_DER_cert(
        identity.cert.read_text().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    )
    return hashlib.sha256(der).digest()


def alert(address: tuple[str, int], context: ssl.SSLContext, name: str | None) -> str:
    """Return what the client says of a handshake that fails."""
    try:
        connect(address, context, name).close()
    except (ssl.SSLError, ConnectionError) as error:
        return str(error)
    raise AssertionError(f"{name} was served")


class Desk:
    """Keeps the questions until the test answers."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[ClientHelloRequest] = queue.SimpleQueue()

    def __call__(self, request: ClientHelloRequest) -> None:
        assert not engine_shim.job_is_current()
        self.asked.put(request)

    def next(self) -> ClientHelloRequest:
        return self.asked.get(timeout=PATIENCE)


def asking_context(main: Identity, asked: Callable[[ClientHelloRequest], object], **options: Any) -> TLSContext:
    """Make a server's context that asks about every ClientHello."""
    return TLSContext(main.cert, main.key, on_client_hello=asked, **options)


def hello_text(ours: ssl.SSLContext, name: str) -> bytes:
    """Make a ClientHello."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ours.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def send(address: tuple[str, int], data: bytes) -> socket.socket:
    sock = socket.create_connection(address, PATIENCE)
    sock.sendall(data)
    return sock


def hello(address: tuple[str, int], ours: ssl.SSLContext, name: str = "x.test") -> socket.socket:
    """Send a ClientHello and no more."""
    return send(address, hello_text(ours, name))
