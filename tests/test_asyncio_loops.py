"""Loops whose ``ssl=`` takes our contexts."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio as tls_asyncio
from support.aio import LOOPS, Echo, Site, client_context, run, server_context
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("loop", LOOPS)
def test_the_loops_own_methods(loop: str, identity: Identity, tmp_path: Path) -> None:
    """asyncio's own functions end there, too."""

    async def main() -> None:
        here = asyncio.get_running_loop()
        context: Any = server_context(identity)
        server = await here.create_server(Echo, "127.0.0.1", 0, ssl=context)
        assert isinstance(server, tls_asyncio.Server)
        ours: Any = Site(identity).own_client()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=ours)
        assert isinstance(writer.transport, tls_asyncio.Transport)
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        unix = await here.create_unix_server(Echo, str(tmp_path / "socket"), ssl=context)
        transport, _ = await here.create_unix_connection(
            Echo, str(tmp_path / "socket"), ssl=ours, server_hostname="localhost"
        )
        assert isinstance(transport, tls_asyncio.Transport)
        transport.abort()
        unix.close()
        await unix.wait_closed()

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_other_contexts_are_the_loops(loop: str, identity: Identity) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(identity.cert, identity.key)
        for context, client in ((theirs, client_context(identity.ca)), (None, None)):
            server = await here.create_server(Echo, "127.0.0.1", 0, ssl=context)
            assert not isinstance(server, tls_asyncio.Server)
            name = None if client is None else "localhost"
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client, server_hostname=name
            )
            assert not isinstance(writer.transport, tls_asyncio.Transport)
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_idempotent(loop: str) -> None:
    made = LOOPS[loop]()
    assert tls_asyncio.patch_loop(made) is made
    methods = [getattr(made, name) for name in ("create_server", "create_connection", "start_tls", "close")]
    tls_asyncio.patch_loop(made)
    assert methods == [getattr(made, name) for name in ("create_server", "create_connection", "start_tls", "close")]
    assert methods[0].__name__ == "create_server"
    made.close()
    made.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_loop_factory(loop: str, identity: Identity) -> None:
    async def main() -> int:
        async with Site(identity) as site:
            reader, writer = await site.connect()
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
        return 5

    factory = tls_asyncio.loop_factory(LOOPS[loop])
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) == 5
    if sys.version_info >= (3, 12):
        assert asyncio.run(main(), loop_factory=factory) == 5


def test_new_event_loop() -> None:
    loop = tls_asyncio.new_event_loop()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert hasattr(loop.create_server, "original")
    loop.close()


def watches_none(*_: object) -> None:
    """Be like a loop of Windows."""
    raise NotImplementedError


def test_loops_that_cannot_be_used() -> None:
    loop: Any = asyncio.SelectorEventLoop()
    loop.add_reader = watches_none
    with pytest.raises(ConfigurationError, match="cannot watch descriptors") as caught:
        tls_asyncio.patch_loop(loop)
    assert "\n" not in str(caught.value)
    del loop.add_reader
    loop.close()
