"""Where servers on loops of asyncio listen: addresses, sockets that exist, paths; and arguments that do not fit."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio as tls_asyncio
from support.aio import LOOPS, Echo, Site, Told, client_context, run, server_context

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


def test_several_addresses(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, host=["127.0.0.1", "::1", "127.0.0.1"]) as site:
            addresses = [one.getsockname()[:2] for one in site.server.sockets]
            assert sorted(host for host, _ in addresses) == ["127.0.0.1", "::1"]
            for host, port in addresses:
                reader, writer = await asyncio.open_connection(host, port, ssl=site.client)
                writer.write(b"hi")
                assert await reader.readexactly(2) == b"hi"
                peer = site.protocols[-1].transport.get_extra_info("peername")
                assert peer[0] == host
                writer.close()
                await writer.wait_closed()

    run(loop, main)


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        ({"host": None}, {"0.0.0.0", "::"}),  # noqa: S104 - what is compared with
        ({"host": ""}, {"0.0.0.0", "::"}),  # noqa: S104 - the same
        ({"host": None, "family": socket.AF_INET}, {"0.0.0.0"}),  # noqa: S104 - the same
        ({"host": "::1", "family": socket.AF_INET6}, {"::1"}),
    ],
    ids=["none", "empty", "ipv4", "ipv6"],
)
def test_hosts(loop: str, identity: Identity, options: dict[str, Any], hosts: set[str]) -> None:
    async def main() -> None:
        async with Site(identity, **options) as site:
            assert {one.getsockname()[0] for one in site.server.sockets} == hosts

    run(loop, main)


def test_port_in_use(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity) as site:
            with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
                await Site(identity, port=site.port).__aenter__()
            assert caught.value.errno == errno.EADDRINUSE
            assert "\n" not in str(caught.value)

    run(loop, main)


def test_reuse_port(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, reuse_port=True) as site, Site(identity, port=site.port, reuse_port=True):
            await site.connect()

    run(loop, main)


def test_socket_that_is_bound(loop: str, identity: Identity) -> None:
    """Nagle's algorithm is off on what it accepts, whoever made it."""

    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        async with Site(identity, Told, host=None, port=None, sock=sock, keep_alive=True) as site:
            protocol, _, _ = await site.open()
            accepted = protocol.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.fileno() == -1

    run(loop, main)


def test_arguments_that_do_not_fit(loop: str, identity: Identity) -> None:
    async def main() -> None:
        context = server_context(identity)
        here = asyncio.get_running_loop()

        async def create(*args: Any, **options: Any) -> None:
            await tls_asyncio.create_server(here, Echo, *args, **{"ssl": context, **options})

        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for error, said, args, options in (
                (TypeError, "unexpected keyword argument 'colour'", ("127.0.0.1", 0), {"colour": 1}),
                (
                    TypeError,
                    r"ssl is a ssl\.SSLContext: give a tlsserver",
                    ("", 0),
                    {"ssl": client_context(identity.ca)},
                ),
                (TypeError, "ssl is a builtins.NoneType", ("", 0), {"ssl": None}),
                (TypeError, "cannot accept connections", ("127.0.0.1", 0), {"ssl": Site(identity).own_client()}),
                (ValueError, "either host and port, or sock", (), {}),
                (ValueError, "either host and port, or sock", ("127.0.0.1", 0), {"sock": sock}),
                (ValueError, "A stream socket was expected", (), {"sock": datagrams}),
                (ValueError, "timeout_handshake", ("127.0.0.1", 0), {"ssl_handshake_timeout": 0}),
            ):
                with pytest.raises(error, match=said):
                    await create(*args, **options)
            with pytest.raises(OSError, match="no-such-host"):
                await create("no-such-host.invalid", 0)

    run(loop, main)


def test_unix_sockets(loop: str, identity: Identity, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()

    async def main() -> None:
        here = asyncio.get_running_loop()
        context = server_context(identity)
        server = await tls_asyncio.create_unix_server(here, Echo, path, ssl=context)
        await echo(path)
        server.close()
        await server.wait_closed()
        assert not path.exists()
        abstract = "\0tlsserver-test-" + str(tmp_path)[-40:]
        server = await tls_asyncio.create_unix_server(here, Echo, abstract, ssl=context)
        await echo(abstract)
        server.close()
        await server.wait_closed()

    async def echo(where: Any) -> None:
        client = client_context(identity.ca)
        sock = socket.socket(socket.AF_UNIX)  # uvloop's clients take no abstract names
        sock.connect(os.fspath(where))
        reader, writer = await asyncio.open_connection(sock=sock, ssl=client, server_hostname="localhost")
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        writer.close()
        await writer.wait_closed()

    run(loop, main)


def test_unix_paths_of_others(loop: str, identity: Identity, tmp_path: Path) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        context = server_context(identity)
        path = tmp_path / "socket"
        server = await tls_asyncio.create_unix_server(here, Echo, path, ssl=context)
        other = await tls_asyncio.create_unix_server(here, Echo, path, ssl=context, cleanup_socket=False)
        server.close()
        assert path.exists()  # it is the other's by now
        other.close()
        assert path.exists()
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(OSError, match=r"cannot listen on the path .*: address already in use"):
            await tls_asyncio.create_unix_server(here, Echo, file, ssl=context)
        assert file.exists()
        with pytest.raises(OSError, match="cannot listen on the path"):
            await tls_asyncio.create_unix_server(here, Echo, tmp_path / "no" / "socket", ssl=context)
        with pytest.raises(ValueError, match="path was not specified"):
            await tls_asyncio.create_unix_server(here, Echo, ssl=context)
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="at the same time"):
            await tls_asyncio.create_unix_server(here, Echo, path, sock=sock, ssl=context)
        with socket.socket() as sock, pytest.raises(ValueError, match="A Unix stream socket"):
            await tls_asyncio.create_unix_server(here, Echo, sock=sock, ssl=context)

    run(loop, main)
