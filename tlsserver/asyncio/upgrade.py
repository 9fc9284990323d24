"""TLS on a connection that exists: `start_tls`, and what the client's side is made of.

Facts
- A transport of asyncio or uvloop watches its descriptor and cannot be asked to let go of it.
- A second descriptor of the same socket (dup(2)) keeps it open when the first is closed, and nothing is sent then.

Decision
- We wait until the plain transport has sent what it holds, take a second descriptor, and abort the transport; its
  protocol does not hear of that. The socket is then watched by nobody but us.

Trade-off
- A server of asyncio's counts the connection as gone from then on, and its `wait_closed` does not wait for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

from tlsserver.addresses import peer_address
from tlsserver.asyncio.endpoint import Endpoint, Entrance
from tlsserver.asyncio.home import home_of
from tlsserver.asyncio.sockets import send_at_once
from tlsserver.asyncio.terms import Limits, Terms, terms_of
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from tlsserver.asyncio.contexts import AnyContext

__all__ = ["Unread", "begin", "connect_accepted_socket", "start_tls", "taken_over"]


class Unread(asyncio.Protocol):
    """The protocol of a transport that is made only to be taken over: what comes should stay in the socket.

    Attributes:
        is_late: Something came before reading was stopped (uvloop reads on), and is lost.
    """

    is_late = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing."""
        transport.pause_reading()  # type: ignore[attr-defined] # sockets can be read

    def data_received(self, data: bytes) -> None:
        """Somebody speaks who should be waiting for us."""
        self.is_late = self.is_late or bool(data)


class _Handover(asyncio.Protocol):
    """The protocol of a plain transport while its socket changes hands.

    Args:
        loop: The transport's.
        before: Its protocol so far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, before: asyncio.BaseProtocol) -> None:
        self._loop = loop
        self._before = before
        self._is_told = False
        self._is_sent: asyncio.Future[None] | None = None

    async def wait_sent(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's classes are its own
        """Wait until nothing is unsent.

        Raises:
            ConnectionError: The connection is lost.
        """
        transport.set_write_buffer_limits(high=0)
        if transport.get_write_buffer_size():
            self._is_sent = self._loop.create_future()
            await self._is_sent

    def pause_writing(self) -> None:
        """Something is unsent."""
        self._is_told = True

    def resume_writing(self) -> None:
        """All is sent."""
        if not self._is_told:  # who was told to pause goes on above TLS
            self._before.resume_writing()
        if self._is_sent is not None and not self._is_sent.done():
            self._is_sent.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """The transport has closed its descriptor: after us, or before all was sent."""
        if self._is_sent is not None and not self._is_sent.done():
            self._is_sent.set_exception(error or ConnectionResetError("the connection was lost before TLS began"))
            self._before.connection_lost(error)


async def taken_over(loop: asyncio.AbstractEventLoop, transport: Any) -> socket.socket:  # noqa: ANN401 - uvloop's classes are its own
    """Take the socket out of a plain transport, behind what it still has to send.

    Args:
        loop: Its loop.
        transport: Of asyncio or uvloop, without TLS; it is closed, and its protocol does not hear of it.

    Returns:
        Non-blocking; the caller's.

    Raises:
        TypeError: The transport has TLS already, or no socket.
        ConnectionError: It is closed.
    """
    if not hasattr(transport, "get_extra_info"):
        raise TypeError(f"transport {transport!r} is not supported by start_tls(): give a transport with a socket")
    if transport.get_extra_info("sslcontext") is not None:
        raise TypeError("start_tls() on a connection that has TLS already: TLS within TLS needs an ssl.SSLContext")
    trsock = transport.get_extra_info("socket")
    if trsock is None or not hasattr(transport, "pause_reading"):  # uvloop's are no asyncio.Transport
        raise TypeError(f"start_tls() needs a transport with a socket, not {type(transport).__name__}")
    if transport.is_closing():
        raise ConnectionResetError("start_tls() on a connection that is closed")
    transport.pause_reading()
    before = transport.get_protocol()
    handover = _Handover(loop, before)
    transport.set_protocol(handover)
    try:
        await handover.wait_sent(transport)
        return socket.socket(fileno=os.dup(trsock.fileno()))
    except BaseException:
        transport.set_protocol(before)
        raise
    finally:
        transport.abort()


async def begin(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    factory: Callable[[], asyncio.BaseProtocol],
    terms: Terms,
    *,
    server_side: bool,
    server_hostname: str | None = None,
    announces: bool = True,
) -> asyncio.Transport:
    """Shake hands on a connected socket.

    Args:
        loop: The loop.
        sock: Connected; it becomes the connection's.
        factory: Makes the protocol when that is done, or returns it.
        terms: Context and limits.
        server_side: Which end we are.
        server_hostname: A client's: whom it wants to talk to.
        announces: Whether the protocol is told ``connection_made``.

    Returns:
        The open connection.

    Raises:
        ssl.SSLError: The handshake failed.
        ConnectionError: The peer left, or it took too long.
        TypeError: The context is not for that side.
        ConfigurationError: It cannot work, or a name is missing.
    """
    try:
        sock.setblocking(False)
        send_at_once(sock)
        home = home_of(loop)
        endpoint = Endpoint(home, terms, home.others, home.drains, server_side=server_side)
        waiter: asyncio.Future[Any] = loop.create_future()
        entrance = Entrance(factory, server_hostname=server_hostname, waiter=waiter, announces=announces)
        driver = endpoint.open(sock, peer_address(sock), entrance, endpoint.close)
    except BaseException:
        sock.close()
        raise
    try:
        transport: asyncio.Transport = await waiter
    except BaseException:
        driver.abort()
        raise
    # Behind what the caller does with the transport, before it waits for anything else.
    loop.call_soon(driver.listen)
    return transport


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.BaseTransport,
    protocol: asyncio.BaseProtocol,
    sslcontext: AnyContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    **limits: Unpack[Limits],
) -> asyncio.Transport:
    """Upgrade a plain connection to TLS (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.start_tls).

    Args:
        loop: The connection's.
        transport: Plain, with a socket; what it still holds is sent first, and it must not be used any more.
        protocol: Goes on above TLS; it is not told ``connection_made``.
        sslcontext: For our side.
        server_side: Which end we are.
        server_hostname: A client's: whom it wants to talk to.
        limits: The fields of `tlsserver.asyncio.terms.Limits`.

    Returns:
        The transport to be used from now on.

    Raises:
        ssl.SSLError: The handshake failed.
        ConnectionError: The peer left, or it took too long.
        TypeError: The transport has TLS already or no socket, or the context is not for that side.
        ConfigurationError: The context cannot work, or a name is missing.
    """
    terms = terms_of(sslcontext, limits, server_side=server_side)
    name = None if server_side else _checked_name(terms.context, server_hostname)
    sock = await taken_over(loop, transport)
    return await begin(
        *(loop, sock, lambda: protocol, terms),
        server_side=server_side,
        server_hostname=name,
        announces=False,
    )


def _checked_name(context: AnyContext, name: str | None) -> str | None:
    """The connection is lost once it is taken over, so what can be said before is said before."""
    if not name and getattr(context, "check_hostname", False):
        raise ConfigurationError(
            "a client that checks names needs server_hostname: the name of the server's certificate"
        )
    return name or None


async def connect_accepted_socket(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    sock: socket.socket,
    *,
    ssl: AnyContext,
    **limits: Unpack[Limits],
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Serve TLS on a socket that was accepted outside of asyncio (`asyncio.loop.connect_accepted_socket`).

    Args:
        loop: The loop.
        protocol_factory: Makes the protocol when the handshake is done.
        sock: Connected; it becomes the connection's.
        ssl: A server's context.
        limits: The fields of `tlsserver.asyncio.terms.Limits`.

    Returns:
        The transport and its protocol.

    Raises:
        ssl.SSLError: The handshake failed.
        ConnectionError: The peer left, or it took too long.
        ValueError: It is no stream socket, or the context cannot work.
        TypeError: The context is not ours, or not a server's.
    """
    terms = terms_of(ssl, limits, server_side=True)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    transport = await begin(loop, sock, protocol_factory, terms, server_side=True)
    return transport, transport.get_protocol()
