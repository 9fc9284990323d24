"""`create_server` and `create_unix_server`, with asyncio's arguments."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

from tlsserver.asyncio.home import home_of
from tlsserver.asyncio.server import Server
from tlsserver.asyncio.sockets import bound_to, bound_to_path, given
from tlsserver.asyncio.terms import Limits, Terms, terms_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Unpack

    from tlsserver.asyncio.contexts import AnyContext
    from tlsserver.asyncio.home import Home
    from tlsserver.asyncio.sockets import Hosts

__all__ = ["ServerArguments", "create_server", "create_unix_server"]

# asyncio's 100 overflow in a burst of handshakes: what comes then the kernel drops, and clients try again after 1 s.
_BACKLOG = 1024

# Of the arguments those that are for the sockets.
_BINDING = {"family": socket.AF_UNSPEC, "flags": socket.AI_PASSIVE, "reuse_address": None, "reuse_port": None}


class ServerArguments(Limits, total=False):
    """Further arguments of `create_server`.

    Attributes:
        family: Only addresses of this family (AF_INET, AF_INET6).
        flags: Of getaddrinfo(3); AI_PASSIVE.
        reuse_address: SO_REUSEADDR; None: yes.
        reuse_port: SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE.
    """

    family: int
    flags: int
    reuse_address: bool | None
    reuse_port: bool | None
    keep_alive: bool | None


async def create_server(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: Hosts = None,
    port: int | None = None,
    *,
    ssl: AnyContext,
    sock: socket.socket | None = None,
    backlog: int = _BACKLOG,
    start_serving: bool = True,
    **arguments: Unpack[ServerArguments],
) -> Server:
    """Listen for TLS connections, as `asyncio.loop.create_server` does; no handshake holds up the loop.

    Args:
        loop: asyncio's or uvloop's; it runs.
        protocol_factory: Makes the protocol of each connection, when its handshake is done.
        host: One, several, None or "" for all interfaces.
        port: 0 or None: any free one.
        ssl: Certificates, keys and policy.
        sock: A socket that is bound already, instead of host and port; it becomes the server's.
        backlog: Connections that the kernel holds while accepting is paused.
        start_serving: Whether it accepts at once.
        arguments: The fields of `ServerArguments` and of `tlsserver.asyncio.terms.Limits`.

    Raises:
        TypeError: ``ssl`` is not ours, or is a client's; or there is no such argument.
        ValueError: The arguments do not fit each other, or the context cannot work.
        OSError: An address cannot be listened on.
    """
    rest: dict[str, Any] = {**arguments}
    binding = {name: rest.pop(name, default) for name, default in _BINDING.items()}
    keep_alive = rest.pop("keep_alive", None)
    terms = terms_of(ssl, cast("Limits", rest), server_side=True, backlog=backlog)
    if (sock is not None) == (host is not None or port is not None):
        raise ValueError("give either host and port, or sock")
    home = home_of(loop)
    sockets = await bound_to(loop, host, port, **binding) if sock is None else [given(sock)]
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
    backlog: int = _BACKLOG,
    start_serving: bool = True,
    cleanup_socket: bool = True,
    **limits: Unpack[Limits],
) -> Server:
    """Listen for TLS connections on a Unix socket, as `asyncio.loop.create_unix_server` does.

    Args:
        loop: As for `create_server`.
        protocol_factory: The same.
        path: Of the socket; one that is left over there gives way.
        ssl: As for `create_server`.
        sock: A Unix socket that is bound already, instead of the path.
        backlog: As for `create_server`.
        start_serving: The same.
        cleanup_socket: Whether the path goes when the server closes.
        limits: The fields of `tlsserver.asyncio.terms.Limits`.

    Raises:
        TypeError: As for `create_server`.
        ValueError: The same.
        OSError: The path cannot be listened on.
    """
    terms = terms_of(ssl, limits, server_side=True, backlog=backlog)
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
