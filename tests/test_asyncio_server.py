"""Servers on loops of asyncio: asyncio's interface, addresses, life, admission."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio as tls_asyncio
from engine_shim import LatencyEngine, ManualEngine
from support.aio import LOOPS, VERSIONS, Site, Told, client_context, home, run, server_context, turns, until
from support.clients import Target, curl, s_client
from support.leaks import PATIENCE
from support.naming import alert
from tlsserver import TLSContext
from tlsserver.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates, Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


class Hello(asyncio.Protocol):
    """Answers every request with its body, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, _, body = self._got.partition(b"\r\n\r\n")
        if len(body) == int(head.lower().partition(b"content-length: ")[2].split()[0]):
            self._transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            self._transport.write(body)
            self._transport.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", [None, lambda: LatencyEngine(0.01)], ids=["off", "latency"])
@pytest.mark.parametrize("client", [s_client, curl])
def test_real_clients(
    loop: str, identity: Identity, version: str, *, engine: Callable[[], Any] | None, client: Callable[..., Any]
) -> None:
    body = b"\x00\xff" * 50_000

    async def main() -> None:
        async with Site(identity, Hello, engine=made) as site:
            target = Target(site.port, identity, version)
            (answer,) = await asyncio.get_running_loop().run_in_executor(None, client, target, [body])
            assert answer.reply.body == body
            await until(lambda: not site.numbers.connections_open)
            assert site.numbers.handshakes_parked == (0 if made is None else 1)
        await asyncio.get_running_loop().shutdown_default_executor()

    made = None if engine is None else engine()
    run(loop, main)
    if made is not None:
        made.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_echo_while_another_is_parked(loop: str, identity: Identity, manual: ManualEngine, version: str) -> None:
    async def main() -> None:
        async with Site(identity, engine=manual, version=version) as site:
            first = asyncio.ensure_future(site.connect())
            await until(lambda: manual.pending)
            manual.perform()
            reader, writer = await first
            second = asyncio.ensure_future(site.connect())
            await until(lambda: manual.pending)
            writer.write(b"still there?")
            assert await reader.readexactly(12) == b"still there?"
            assert site.numbers.parked_now == 1
            manual.perform()
            await second
            await until(lambda: site.numbers.handshakes_completed == 2)
            assert (site.numbers.handshakes_parked, site.numbers.parked_now) == (2, 0)

    run(loop, main)


def test_life(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, start_serving=False) as site:
            server = site.server
            assert server.get_loop() is asyncio.get_running_loop()
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await site.raw()
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            assert [one.getsockname() for one in server.sockets] == [site.address]
            _, writer = await site.connect()
            server.close()
            server.close()
            assert (server.is_serving(), server.sockets) == (False, ())
            with pytest.raises(ConnectionRefusedError):
                await site.raw()
            with pytest.raises(RuntimeError, match="is closed"):
                await server.start_serving()
            closed = asyncio.ensure_future(server.wait_closed())
            await turns(5)
            assert not closed.done()  # what is open stays open
            writer.close()
            await closed
            await server.wait_closed()

    run(loop, main)


def test_serve_forever(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, start_serving=False) as site:
            serving = asyncio.ensure_future(site.server.serve_forever())
            await turns()
            with pytest.raises(RuntimeError, match="already being awaited"):
                await site.server.serve_forever()
            await site.connect()
            serving.cancel()
            site.server.abort_clients()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert not site.server.sockets

    run(loop, main)


def test_close_ends_serve_forever(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, start_serving=False) as site:
            serving = asyncio.ensure_future(site.server.serve_forever())
            await turns()
            site.server.close()
            with pytest.raises(asyncio.CancelledError):
                await serving
            with pytest.raises(RuntimeError, match="is closed"):
                await site.server.serve_forever()

    run(loop, main)


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_close_clients(loop: str, identity: Identity, manual: ManualEngine, how: str) -> None:
    """Handshakes are given up in either way; what is open gets what was written for it, if it is only closed."""

    async def main() -> None:
        async with Site(identity, Told, engine=manual) as site:
            first = asyncio.ensure_future(site.connect())
            await until(lambda: manual.pending)
            manual.perform()
            reader, _ = await first
            parked = await site.raw(site.hello())
            await until(lambda: site.numbers.parked_now)
            site.protocols[0].transport.write(b"last words")
            getattr(site.server, how)()
            assert await reader.read() == b"last words"
            while await asyncio.get_running_loop().sock_recv(parked, 1 << 16):
                pass
            parked.close()
            site.server.close()
            await site.server.wait_closed()
            assert site.protocols[0].told == ["made", "lost"]

    run(loop, main)


def test_as_a_context_manager(loop: str, identity: Identity) -> None:
    async def main() -> None:
        site = Site(identity)
        await site.__aenter__()
        async with site.server as server:
            assert server is site.server
        assert not server.sockets

    run(loop, main)


def test_admission(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """So many handshakes at once; the rest waits in the kernel."""

    async def main() -> None:
        async with Site(identity, engine=manual, config=ServerConfig(max_handshakes=2)) as site:
            clients = [asyncio.ensure_future(site.connect()) for _ in range(5)]
            for done in range(5):
                await until(lambda done=done: manual.pending == min(2, 5 - done))  # type: ignore[misc]
                await turns(3)
                assert site.numbers.connections_accepted == min(done + 2, 5)
                manual.perform()
                await until(lambda done=done: site.numbers.handshakes_completed == done + 1)  # type: ignore[misc]
            await asyncio.gather(*clients)
            assert site.numbers.parked_max == 2

    run(loop, main)


def test_limit_of_concurrency(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told, config=ServerConfig(limit_concurrency=1)) as site:
            first, _, _ = await site.open()
            waiting = asyncio.ensure_future(site.connect())
            await turns(5)
            assert site.numbers.connections_accepted == 1
            first.transport.abort()
            await waiting

    run(loop, main)


def test_handshake_timeout_counts_parked_time(
    loop: str, identity: Identity, manual: ManualEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlsserver")

    async def main() -> None:
        async with Site(identity, engine=manual, ssl_handshake_timeout=0.2) as site:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await site.connect()
            assert (site.numbers.handshakes_failed, site.numbers.parked_now) == (1, 0)

    run(loop, main)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tlsserver.connection"]
    assert "not finished within 0.2 s: its operation is still in the engine" in line
    caplog.clear()  # its records hold the connection's peer, and so the engine's key


def test_plain_http_is_answered(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity) as site:
            reader, writer = await asyncio.open_connection(*site.address)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            await writer.wait_closed()

    run(loop, main)


def test_statistics(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, version="1.3") as site, Site(identity) as other:
            reader, writer = await site.connect()
            writer.write(b"x" * 1000)
            await reader.readexactly(1000)
            numbers = site.numbers
            assert (numbers.connections_open, numbers.bytes_received, numbers.bytes_sent) == (1, 1000, 1000)
            assert numbers.handshake_seconds.count == 1
            assert other.numbers.connections_accepted == 0
            other.server.close()
            await other.server.wait_closed()
            assert home().others in home().counters

    run(loop, main)


def test_two_server_objects_are_told_apart(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity) as site:
            assert f"127.0.0.1', {site.port}" in repr(site.server)

    run(loop, main)


def test_refused_clients_are_told(loop: str, certificates: Certificates) -> None:
    """A client of another version is nobody's exception, and nobody else's trouble."""

    async def main() -> None:
        context = server_context(certificates["p256"], min_version="1.3")
        async with Site(certificates["p256"], context=context) as site:
            old = client_context(site.identity.ca, "1.2")
            here = asyncio.get_running_loop()
            said = await here.run_in_executor(None, alert, site.address, old, "localhost")
            assert "version" in said.lower()
            await site.connect()
        await here.shutdown_default_executor()

    run(loop, main)


def test_the_openssl_command_sees_the_chain(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity) as site:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-CAfile", str(identity.ca)]

            def call() -> str:
                done = subprocess.run(
                    [*command, "-brief"], input=b"", capture_output=True, timeout=PATIENCE, check=True
                )
                return done.stderr.decode()

            assert "Verification: OK" in await asyncio.get_running_loop().run_in_executor(None, call)
        await asyncio.get_running_loop().shutdown_default_executor()

    run(loop, main)


def test_what_a_context_is_made_of_may_change(loop: str, certificates: Certificates) -> None:
    """New connections begin with the new one; the old go on with theirs."""
    first, second = certificates["p256"], certificates["p384"]

    class Source(tls_asyncio.SSLContext):
        current: TLSContext

        def server_context(self) -> TLSContext:
            return self.current

    async def main() -> None:
        source = Source()
        source.current = server_context(first)
        async with Site(first, context=source) as site:
            reader, writer = await site.connect()
            source.current = server_context(second)
            _, other = await site.connect()
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            certs = [one.get_extra_info("ssl_object").getpeercert(binary_form=True) for one in (writer, other)]
            assert certs[0] != certs[1]

    run(loop, main)
