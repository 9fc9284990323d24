"""asyncio's transport over a TLS connection on its own socket, and what it tells about the connection."""

from __future__ import annotations

from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any

from engine_shim import facts
from tlsserver import transport
from tlsserver.addresses import as_text, own_address
from tlsserver.asyncio.ssl_object import SSLObject

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tlsserver.asyncio.contexts import AnyContext
    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.connection import Connection
    from tlsserver.offers import Offer
    from tlsserver.session import Session
    from tlsserver.wire import TLSInfo

__all__ = ["Peer", "Transport"]


class Transport(transport.Transport):
    """An open TLS connection, as a protocol of asyncio sees it.

    `get_extra_info` knows what asyncio's own TLS transport does (``sslcontext``, ``ssl_object``, ``peercert``,
    ``cipher``, ``compression``, ``socket``, ``peername``, ``sockname``) and what `tlsserver.transport.Transport` does.
    """

    __slots__ = ()

    # What asyncio's own start_tls() asks for: the standard library's TLS may run inside ours.
    _start_tls_compatible = True


class Peer:
    """The other end of a connection, and what is known of the connection beyond its state."""

    __slots__ = (
        "_info",
        "_looks_twice",
        "_sock",
        "_ssl_object",
        "address",
        "context",
        "offer",
        "server_hostname",
        "session",
    )

    def __init__(
        self,
        offer: Offer,
        session: Session,
        sock: socket.socket,
        *,
        address: Any,  # noqa: ANN401 - its form depends on the family
        context: AnyContext,
        server_hostname: str | None,
        looks_twice: bool,
    ) -> None:
        """Remember.

        Args:
            offer: What the connections of its context have in common.
            session: Its TLS.
            sock: Its socket.
            address: Of the other end.
            context: As the user gave it.
            server_hostname: A client's: whom it wants to talk to.
            looks_twice: Whether the loop, which watches it from the end of the handshake, may tell of an error once.
        """
        self.offer = offer
        self.session = session
        self.address = address
        self.context = context
        self.server_hostname = server_hostname
        self._looks_twice = looks_twice
        self._sock = sock
        self._info: TLSInfo | None = None
        self._ssl_object: SSLObject | None = None

    def __str__(self) -> str:
        """Return the address as the log shows it."""
        return as_text(self.address, self.session.peer)

    def transport(self, connection: Connection) -> Transport:
        """Make the transport of the open connection."""
        self._info = connection.tls
        if self._looks_twice:
            self.session.tls.look_twice()
        return Transport(connection, self.offer.clock, self)

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401 - its type depends on the name
        """Return what `Transport.get_extra_info` tells about it."""
        fact = _FACTS.get(name)
        return default if fact is None else fact(self)

    @property
    def ssl_object(self) -> SSLObject:
        """The handshake's outcome, made when somebody asks; only after the handshake."""
        if self._ssl_object is None:
            if self._info is None:
                raise RuntimeError("the handshake is not done")
            certificate = self.session.peer_certificate
            self._ssl_object = SSLObject(
                self.context,
                self.session.tls,
                self._info,
                () if certificate is None else certificate.chain,
                server_side=self.session.peer == "client",
                server_hostname=self.server_hostname,
                # Of the context that the connection began with: the user's may be another one now.
                is_verified=bool(getattr(self.offer.context, "verify", True)),
            )
        return self._ssl_object

    @property
    def sock(self) -> TransportSocket:
        """The socket, for its addresses and options."""
        return TransportSocket(self._sock)

    @property
    def own_address(self) -> Any:  # noqa: ANN401 - its form depends on the family
        """Our end's address; None when the socket is closed."""
        return own_address(self._sock)

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """The client's certificate, at the server's end."""
        return self.session.peer_certificate if self.session.peer == "client" else None

    @property
    def server_certificate(self) -> bytes | None:
        """The certificate that the client was shown, in DER; None at the client's end, or after the connection's."""
        return facts.own_certificate(self.session.tls) if self.session.peer == "client" else None


_FACTS: dict[str, Callable[[Peer], Any]] = {
    "sslcontext": lambda peer: peer.context,
    "ssl_object": lambda peer: peer.ssl_object,
    "peercert": lambda peer: peer.ssl_object.getpeercert(),
    "cipher": lambda peer: peer.ssl_object.cipher(),
    "compression": lambda peer: peer.ssl_object.compression(),
    "socket": lambda peer: peer.sock,
    "peername": lambda peer: peer.address,
    "sockname": lambda peer: peer.own_address,
    "engine": lambda peer: peer.offer.engine,
    "wait_context": lambda peer: peer.session.wait_context,
    "client_certificate": lambda peer: peer.client_certificate,
    "server_certificate": lambda peer: peer.server_certificate,
    "peer_certificate": lambda peer: peer.session.peer_certificate,
}
