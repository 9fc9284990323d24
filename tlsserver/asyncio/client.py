"""TLS as a client: `create_connection` and `create_unix_connection`, with asyncio's arguments.

The loop's own `create_connection` connects (names, several addresses, happy eyeballs), without TLS; what follows is
`tlsserver.asyncio.upgrade`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

from tlsserver.asyncio.errors import HandshakeFailedError
from tlsserver.asyncio.terms import Limits, Terms, terms_of
from tlsserver.asyncio.upgrade import Unread, begin, taken_over
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from tlsserver.asyncio.contexts import AnyContext

__all__ = ["create_connection", "create_unix_connection"]


async def create_connection(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | None = None,
    port: int | None = None,
    *,
    ssl: AnyContext,
    server_hostname: str | None = None,
    **arguments: Any,  # noqa: ANN401 - ours and asyncio's own
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Connect to a TLS server (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_connection).

    A client's key may be in any engine: mutual TLS with the key in an HSM.

    Args:
        loop: The loop.
        protocol_factory: Makes the protocol when the handshake is done.
        host: Whom to connect to.
        port: The same.
        ssl: A client's context.
        server_hostname: The name of the server's certificate; None: ``host``; "": no name is sent.
        arguments: The fields of `tlsserver.asyncio.terms.Limits`, and whatever the loop's own takes: ``sock``,
            ``family``, ``local_addr``, ``happy_eyeballs_delay`` ...

    Returns:
        The transport and its protocol.

    Raises:
        ssl.SSLError: The handshake failed; `ssl.SSLCertVerificationError`: the server's certificate is not accepted.
        OSError: There is no connection.
        TypeError: The context is not ours, or not a client's.
        ValueError: The arguments do not fit each other, or the context cannot work.
    """
    terms = terms_of(ssl, _limits(arguments), server_side=False)
    if server_hostname is None and not host:
        raise ConfigurationError("You must set server_hostname when using ssl without a host")
    name = host if server_hostname is None else server_hostname
    if _is_only_socket(arguments) and host is None and port is None:
        return await _on_socket(loop, arguments["sock"], protocol_factory, terms, name)
    connect = original(loop, "create_connection")
    connected = await connect(Unread, host, port, **arguments)
    return await _upgraded(loop, connected, protocol_factory, terms, name)


async def create_unix_connection(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    path: str | bytes | Path | None = None,
    *,
    ssl: AnyContext,
    server_hostname: str | None = None,
    **arguments: Any,  # noqa: ANN401 - ours and asyncio's own
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Connect to a TLS server on a Unix socket: see `create_connection` and `asyncio.loop.create_unix_connection`.

    Args:
        loop: See there, as for all that is not named here.
        protocol_factory: See there.
        path: Of the socket.
        ssl: See there.
        server_hostname: The name of the server's certificate; needed, because a path is none.
        arguments: The fields of `tlsserver.asyncio.terms.Limits`, and ``sock``.

    Returns:
        The transport and its protocol.

    Raises:
        ssl.SSLError: See there.
        OSError: See there.
        TypeError: See there.
        ValueError: See there.
    """
    terms = terms_of(ssl, _limits(arguments), server_side=False)
    if server_hostname is None:
        raise ConfigurationError("you have to pass server_hostname when using ssl")
    if _is_only_socket(arguments) and path is None:
        return await _on_socket(loop, arguments["sock"], protocol_factory, terms, server_hostname)
    connect = original(loop, "create_unix_connection")
    connected = await connect(Unread, path, **arguments)
    return await _upgraded(loop, connected, protocol_factory, terms, server_hostname)


def _limits(arguments: dict[str, Any]) -> Limits:
    """Take ours out of the arguments; the rest is for the loop."""
    return cast("Limits", {name: arguments.pop(name) for name in Limits.__annotations__ if name in arguments})


def original(loop: asyncio.AbstractEventLoop, name: str) -> Callable[..., Any]:
    """Return a method of the loop's own, also where `tlsserver.asyncio.patch_loop` has put ours before it."""
    method = getattr(loop, name)
    before: Callable[..., Any] = getattr(method, "original", method)
    return before


def _is_only_socket(arguments: dict[str, Any]) -> bool:
    return arguments.keys() == {"sock"} and arguments["sock"] is not None


async def _on_socket(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    terms: Terms,
    name: str | None,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Use the caller's socket itself: callers go on setting its options."""
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    transport = await begin(loop, sock, protocol_factory, terms, server_side=False, server_hostname=name or None)
    return transport, transport.get_protocol()


async def _upgraded(
    loop: asyncio.AbstractEventLoop,
    connected: tuple[asyncio.BaseTransport, Unread],
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    terms: Terms,
    name: str | None,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    plain, unread = connected
    sock = await taken_over(loop, plain)
    if unread.is_late:
        sock.close()
        raise HandshakeFailedError.of("wrong version number: the server spoke first, so it does not speak TLS")
    transport = await begin(loop, sock, protocol_factory, terms, server_side=False, server_hostname=name or None)
    return transport, transport.get_protocol()
