"""`create_server` and `create_unix_server`, with asyncio's arguments."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tlsserver.asyncio.home import home_of
from tlsserver.asyncio.server import Server
from tlsserver.asyncio.sockets import bound_to, bound_to_path, given
from tlsserver.asyncio.terms import Terms, terms_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from tlsserver.asyncio.contexts import AnyContext
    from tlsserver.asyncio.home import Home
    from tlsserver.asyncio.sockets import Hosts
    from tlsserver.config import ServerConfig

__all__ = ["create_server", "create_unix_server"]


async def create_server(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: Hosts = None,
    port: int | None = None,
    *,
    ssl: AnyContext,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 1024,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    config: ServerConfig | None = None,
) -> Server:
    """Listen for TLS connections; their handshakes never hold up the loop.

    The arguments are those of `asyncio.loop.create_server`
    (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_server), with these differences.

    Args:
        loop: asyncio's or uvloop's; it runs.
        protocol_factory: Makes the protocol of each connection, when its handshake is done.
        host: One, several, None or "" for all interfaces.
        port: 0 or None: any free one.
        ssl: Certificates, keys and policy.
        family: Only addresses of this family.
        flags: Of getaddrinfo(3).
        sock: A socket that is bound already, instead of host and port; it becomes the server's.
        backlog: Connections that the kernel holds while accepting is paused; asyncio's 100 overflow in a burst.
        reuse_address: SO_REUSEADDR; None: yes.
        reuse_port: SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE.
        ssl_handshake_timeout: Seconds from accept to the end of the handshake, parked time included; None: 10.
        ssl_shutdown_timeout: Seconds to wait for the peer's close_notify; None: 5.
        start_serving: Whether it accepts at once.
        config: Further limits, such as ``max_handshakes``; asyncio's arguments come before it.

    Returns:
        The server, listening.

    Raises:
        TypeError: ``ssl`` is not ours, or is a client's.
        ValueError: The arguments do not fit each other, or the context cannot work.
        OSError: An address cannot be listened on.
    """
    terms = terms_of(
        ssl,
        config,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        backlog=backlog,
    )
    if sock is None and host is None and port is None:
        raise ValueError("Neither host/port nor sock were specified")
    if sock is not None and (host is not None or port is not None):
        raise ValueError("host/port and sock can not be specified at the same time")
    home = home_of(loop)
    if sock is not None:
        sockets = [given(sock)]
    else:
        sockets = await bound_to(
            *(loop, host, port), family=family, flags=flags, reuse_address=reuse_address, reuse_port=reuse_port
        )
    if keep_alive:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return _served(home, sockets, protocol_factory, terms, start_serving=start_serving)


async def create_unix_server(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    path: str | bytes | Path | None = None,
    *,
    ssl: AnyContext,
    sock: socket.socket | None = None,
    backlog: int = 1024,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    cleanup_socket: bool = True,
    config: ServerConfig | None = None,
) -> Server:
    """Listen for TLS connections on a Unix socket: see `create_server` and `asyncio.loop.create_unix_server`.

    Args:
        loop: See there, as for all that is not named here.
        protocol_factory: See there.
        path: Of the socket; one that is left over there gives way.
        ssl: See there.
        sock: A Unix socket that is bound already, instead of the path.
        backlog: See there.
        ssl_handshake_timeout: See there.
        ssl_shutdown_timeout: See there.
        start_serving: See there.
        cleanup_socket: Whether the path goes when the server closes.
        config: See there.

    Returns:
        The server, listening.

    Raises:
        TypeError: See there.
        ValueError: See there.
        OSError: The path cannot be listened on.
    """
    terms = terms_of(
        ssl,
        config,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        backlog=backlog,
    )
    home = home_of(loop)
    bound = _unix_socket(path, sock)
    made = _served(home, [bound], protocol_factory, terms, start_serving=start_serving)
    if cleanup_socket:
        made.remove_at_close(bound.getsockname())
    return made


def _unix_socket(path: str | bytes | Path | None, sock: socket.socket | None) -> socket.socket:
    if path is not None and sock is not None:
        raise ValueError("path and sock can not be specified at the same time")
    if path is not None:
        return bound_to_path(path)
    if sock is None:
        raise ValueError("path was not specified, and no sock specified")
    return given(sock, socket.AF_UNIX)


def _served(
    home: Home,
    sockets: list[socket.socket],
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    terms: Terms,
    *,
    start_serving: bool,
) -> Server:
    try:
        server = Server(home, sockets, protocol_factory, terms)
        if start_serving:
            server.listen()
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return server
