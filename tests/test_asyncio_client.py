"""Clients on asyncio's loops: connecting, verifying, mutual TLS with the key in an engine, and ends in every state."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio as tls_asyncio
from engine_shim import ThreadEngine
from support.aio import LOOPS, VERSIONS, Echo, Site, Told, client_context, home, run, server_context, turns, until
from tlsserver.client_context import ClientContext
from tlsserver.config import ServerConfig
from tlsserver.errors import TLSServerError

if TYPE_CHECKING:
    from pathlib import Path

    from engine_shim import ManualEngine
    from support.certificates import Certificates, Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


async def connect(site: Site, context: Any = None, **options: Any) -> tuple[Any, Any]:
    """Connect with a client of ours."""
    options = {"host": "127.0.0.1", "port": site.port, "server_hostname": "localhost", **options}
    if "sock" in options:
        del options["host"], options["port"]
    here = asyncio.get_running_loop()
    return await tls_asyncio.create_connection(here, Told, ssl=context or site.own_client(), **options)


async def check(transport: Any, protocol: Any) -> None:
    """Say something, hear it again, and leave."""
    transport.write(b"hello")
    await until(lambda: protocol.received == b"hello")
    transport.close()
    await protocol.lost
    assert protocol.told[-1] == "lost"


@pytest.mark.parametrize("version", VERSIONS)
def test_names_and_addresses(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        async with Site(identity, version=version) as site:
            for options in ({}, {"server_hostname": "127.0.0.1"}, {"server_hostname": None}, {"host": "localhost"}):
                transport, protocol = await connect(site, **options)
                assert protocol.told == ["made"]
                assert transport.get_extra_info("tls").version == f"TLSv{version}"
                assert transport.get_extra_info("peername") == site.address
                assert transport.get_extra_info("peercert")["subjectAltName"][0] == ("DNS", "localhost")
                await check(transport, protocol)

    run(loop, main)


def test_what_passes_through_to_the_loop(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, host=["127.0.0.1", "::1"]) as site:
            addresses = [one.getsockname() for one in site.server.sockets]
            plain = socket.create_connection(site.address)
            plain.setblocking(False)
            more: tuple[dict[str, Any], ...] = ({"sock": plain}, {"local_addr": ("127.0.0.1", 0)})
            if loop == "asyncio":
                more += ({"happy_eyeballs_delay": 0.1},)
            for options in more:
                await check(*await connect(site, **options))
            (six,) = [one for one in addresses if one[0] == "::1"]
            await check(*await connect(site, host="::1", port=six[1], family=socket.AF_INET6))

    run(loop, main)


@pytest.mark.parametrize("version", VERSIONS)
def test_certificates_that_are_not_accepted(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        async with Site(identity, version=version) as site:
            for options, context, said in (
                ({"server_hostname": "example.org"}, None, "hostname mismatch"),
                ({"server_hostname": "127.0.0.2"}, None, "IP address mismatch"),
                ({}, ClientContext(default_paths=False), "unable to get local issuer certificate"),
            ):
                with pytest.raises(ssl.SSLCertVerificationError, match=said) as caught:
                    await connect(site, context, **options)
                assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
                assert isinstance(caught.value, TLSServerError)
                assert "\n" not in str(caught.value)
            await until(lambda: not site.numbers.connections_open)
            assert not home().hub.drivers - {one for one in home().hub.drivers if one.connection.tls}

    run(loop, main)


@pytest.mark.parametrize("version", VERSIONS)
def test_mutual_tls_with_the_key_in_an_engine(
    loop: str, certificates: Certificates, manual: ManualEngine, version: str
) -> None:
    """The client's handshake is parked, and the server on the same loop goes on."""
    from tlsserver import ClientCertificates  # noqa: PLC0415 - for this one

    identity = certificates["p256"]
    me = certificates.issue("asyncio-client", "p256")

    async def main() -> None:
        required = ClientCertificates("required", ca_certs=identity.ca)
        context = server_context(identity, client_certificates=required)
        async with Site(identity, context=context, version=version) as site:
            ours = site.own_client(certificate=me.cert, key=manual.load_key(me.key))
            connecting = asyncio.ensure_future(connect(site, ours))
            await until(lambda: manual.pending)
            manual.perform()
            await check(*await connecting)
            server = site.protocols[0].transport
            assert server.get_extra_info("client_certificate") is not None
            assert server.get_extra_info("peercert")["subject"]

    run(loop, main)


def test_handshakes_that_fail(loop: str, identity: Identity) -> None:
    async def main() -> None:
        context = server_context(identity, min_version="1.3")
        async with Site(identity, context=context) as site:
            with pytest.raises(ssl.SSLError, match=r"(?i)version") as caught:
                await connect(site, ClientContext(ca_certs=identity.ca, max_version="1.2", min_version="1.2"))
            assert isinstance(caught.value, TLSServerError)
            with pytest.raises(ConnectionRefusedError):
                await connect(site, port=1)
            with pytest.raises(TypeError, match="cannot make connections"):
                await connect(site, context)
            with socket.socket() as sock, pytest.raises(ValueError, match="server_hostname"):
                await connect(site, sock=sock, server_hostname=None)

    run(loop, main)


@pytest.mark.parametrize("banner", [b"", b"220 ready\r\n"], ids=["silent", "greeting"])
def test_servers_without_tls(loop: str, identity: Identity, banner: bytes) -> None:
    """One that speaks first is seen for what it is; one that closes as well."""

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(banner)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert data[0] == 22
            self.transport.close()

    async def main() -> None:
        here = asyncio.get_running_loop()
        server = await here.create_server(Greeting, "127.0.0.1", 0)
        site = Site(identity)
        site.port = server.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLError if banner else ConnectionResetError):
            await connect(site)
        server.close()
        await turns(5)

    run(loop, main)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@pytest.mark.parametrize("moment", ["at-once", "handshaking", "parked"])
def test_ends(loop: str, certificates: Certificates, manual: ManualEngine, moment: str, how: str) -> None:
    """Nothing is left of a connection that is given up, wherever it was."""
    identity = certificates["p256"]

    async def main() -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        async with Site(identity, version="1.2", context=mutual(identity)) as site:
            if moment != "parked":
                site.port = silent.getsockname()[1]
            ours = site.own_client(certificate=identity.cert, key=manual.load_key(identity.key))
            timeout = 0.1 if how == "timeout" else None
            connecting = asyncio.ensure_future(connect(site, ours, ssl_handshake_timeout=timeout))
            if moment == "parked":
                await until(lambda: manual.pending)
            elif moment == "handshaking":
                await until(lambda: len(home().hub.drivers) == 1)
            else:
                await asyncio.wait([connecting], timeout=0)
            if how == "cancel":
                connecting.cancel()
            with pytest.raises(asyncio.CancelledError if how == "cancel" else ConnectionAbortedError) as caught:
                await connecting
            if how == "timeout":
                assert isinstance(caught.value, TLSServerError)
            await until(lambda: not home().hub.drivers)
            assert manual.pending == 0
        silent.close()

    run(loop, main)


def mutual(identity: Identity) -> Any:
    """Make a server's context that wants a certificate."""
    from tlsserver import ClientCertificates  # noqa: PLC0415 - for this one

    return server_context(identity, client_certificates=ClientCertificates("required", ca_certs=identity.ca))


def test_unix_sockets(loop: str, identity: Identity, tmp_path: Path) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        path = tmp_path / "socket"
        server = await tls_asyncio.create_unix_server(here, Echo, path, ssl=server_context(identity))
        ours = Site(identity).own_client()
        transport, protocol = await tls_asyncio.create_unix_connection(
            here, Told, str(path), ssl=ours, server_hostname="localhost"
        )
        await check(transport, protocol)
        with pytest.raises(ValueError, match="server_hostname"):
            await tls_asyncio.create_unix_connection(here, Told, str(path), ssl=ours)
        server.close()
        await server.wait_closed()

    run(loop, main)


def test_many_at_once(loop: str, identity: Identity) -> None:
    """Both ends on one loop, each with an engine of its own."""

    async def main() -> None:
        with ThreadEngine(2) as engine:
            async with Site(identity, engine=engine, config=ServerConfig(max_handshakes=20)) as site:
                made = await asyncio.gather(*(connect(site) for _ in range(60)))
                await asyncio.gather(*(check(*one) for one in made))
                await until(lambda: not site.numbers.connections_open)
                assert site.numbers.handshakes_completed == 60

    run(loop, main)


def test_other_contexts_are_refused(loop: str, identity: Identity) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        with pytest.raises(TypeError, match=r"ssl is a ssl\.SSLContext: give a"):
            await tls_asyncio.create_connection(here, Told, "x", 1, ssl=client_context(identity.ca))  # type: ignore[arg-type]

    run(loop, main)
