"""`start_server`, `start_unix_server`, `open_connection`: asyncio's streams over our TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.client import create_connection, create_unix_connection
from tlsserver.asyncio.listen import create_server, create_unix_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tlsserver.asyncio.contexts import AnyContext
    from tlsserver.asyncio.server import Server
    from tlsserver.asyncio.sockets import Hosts

__all__ = ["open_connection", "open_unix_connection", "start_server", "start_unix_server"]

_LIMIT = 64 * 1024  # asyncio's own


async def start_server(
    client_connected_cb: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
    host: Hosts = None,
    port: int | None = None,
    *,
    ssl: AnyContext,
    limit: int = _LIMIT,
    **options: Any,  # noqa: ANN401 - those of create_server
) -> Server:
    """Serve TLS with streams (https://docs.python.org/3/library/asyncio-stream.html#asyncio.start_server).

    Args:
        client_connected_cb: Called with a reader and a writer for each connection, when its handshake is done.
        host: As for `tlsserver.asyncio.create_server`.
        port: The same.
        ssl: The same.
        limit: Of the reader's buffer, in bytes.
        options: Further ones of `tlsserver.asyncio.create_server`.

    Returns:
        The server, listening.

    Raises:
        TypeError: As there.
        ValueError: As there.
        OSError: As there.
    """
    loop = asyncio.get_running_loop()
    return await create_server(loop, _factory(loop, client_connected_cb, limit), host, port, ssl=ssl, **options)


async def start_unix_server(
    client_connected_cb: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
    path: str | bytes | Path | None = None,
    *,
    ssl: AnyContext,
    limit: int = _LIMIT,
    **options: Any,  # noqa: ANN401 - those of create_unix_server
) -> Server:
    """Serve TLS with streams on a Unix socket: see `start_server` and `tlsserver.asyncio.create_unix_server`."""
    loop = asyncio.get_running_loop()
    return await create_unix_server(loop, _factory(loop, client_connected_cb, limit), path, ssl=ssl, **options)


def _factory(
    loop: asyncio.AbstractEventLoop,
    client_connected_cb: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
    limit: int,
) -> Callable[[], asyncio.StreamReaderProtocol]:
    def make() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return make


async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    ssl: AnyContext,
    limit: int = _LIMIT,
    **options: Any,  # noqa: ANN401 - those of create_connection
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with streams (https://docs.python.org/3/library/asyncio-stream.html#asyncio.open_connection).

    Args:
        host: As for `tlsserver.asyncio.create_connection`.
        port: The same.
        ssl: The same.
        limit: Of the reader's buffer, in bytes.
        options: Further ones of `tlsserver.asyncio.create_connection`.

    Returns:
        A reader and a writer.

    Raises:
        ssl.SSLError: As there.
        OSError: As there.
        TypeError: As there.
        ValueError: As there.
    """
    return await _opened(create_connection, host, port, ssl=ssl, limit=limit, **options)


async def open_unix_connection(
    path: str | bytes | Path | None = None,
    *,
    ssl: AnyContext,
    limit: int = _LIMIT,
    **options: Any,  # noqa: ANN401 - those of create_unix_connection
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket with streams: see `open_connection` and `tlsserver.asyncio.create_unix_connection`."""
    return await _opened(create_unix_connection, path, ssl=ssl, limit=limit, **options)


async def _opened(
    connect: Callable[..., Any],
    *where: Any,  # noqa: ANN401 - host and port, or a path
    limit: int,
    **options: Any,  # noqa: ANN401 - those of `connect`
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await connect(loop, lambda: protocol, *where, **options)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
