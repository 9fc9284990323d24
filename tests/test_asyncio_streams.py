"""asyncio's streams over our TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest

import tlsserver.asyncio as tls_asyncio
from support.aio import LOOPS, VERSIONS, Site, run, server_context, turns

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]

LONG = bytes(range(256)) * 4096


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer line by line."""
    async for line in reader:
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        server = await tls_asyncio.start_server(upper, "127.0.0.1", 0, ssl=server_context(identity))
        ours = Site(identity, version=version).own_client()
        port = server.sockets[0].getsockname()[1]
        reader, writer = await tls_asyncio.open_connection("localhost", port, ssl=ours, family=2)
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        assert writer.get_extra_info("peercert")
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main)


def test_unix_sockets_and_limits(loop: str, identity: Identity, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    seen: list[str] = []

    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        seen.append("limited")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await tls_asyncio.start_unix_server(strict, path, ssl=server_context(identity), limit=10)
        ours = Site(identity).own_client()
        reader, writer = await tls_asyncio.open_unix_connection(path, ssl=ours, server_hostname="localhost")
        writer.write(b"x" * 100 + b"\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main)
    assert seen == ["limited"]


def test_megabytes_with_flow_control(loop: str, identity: Identity) -> None:
    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(8):
            writer.write(LONG)
            await writer.drain()
            assert writer.transport.get_write_buffer_size() <= 64 * 1024
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await tls_asyncio.start_server(send, "127.0.0.1", 0, ssl=server_context(identity))
        ours = Site(identity).own_client()
        reader, writer = await tls_asyncio.open_connection(*server.sockets[0].getsockname(), ssl=ours)
        for _ in range(8):
            assert hash(await reader.readexactly(len(LONG))) == hash(LONG)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main)


def test_a_callback_that_fails(loop: str, identity: Identity) -> None:
    seen: list[str] = []

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()
        raise LookupError("scripted")

    async def main() -> None:
        here = asyncio.get_running_loop()
        here.set_exception_handler(lambda _, context: seen.append(str(context.get("exception"))))
        server = await tls_asyncio.start_server(fail, "127.0.0.1", 0, ssl=server_context(identity))
        ours = Site(identity).own_client()
        reader, writer = await tls_asyncio.open_connection(*server.sockets[0].getsockname(), ssl=ours)
        writer.write(b"x")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()
        await turns(3)

    run(loop, main)
    assert set(seen) <= {"scripted"}  # since Python 3.12 asyncio tells of it
