"""The transport's contract on asyncio's loops: flow control, ends of every kind, and what it tells about itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from support.aio import LOOPS, VERSIONS, Echo, Records, Site, Told, run, turns, until
from support.clients import reset
from tlsserver.errors import PeerError

if TYPE_CHECKING:
    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]

LONG = bytes(range(256)) * 1024


@pytest.mark.parametrize("version", VERSIONS)
def test_reading_is_paused(loop: str, identity: Identity, version: str) -> None:
    """Also what OpenSSL holds already, of which no event tells."""

    async def main() -> None:
        async with Site(identity, Told, version=version) as site:
            protocol, _, writer = await site.open()
            transport = protocol.transport
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            writer.write(LONG)
            await turns(5)
            assert protocol.received == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.received == LONG)

    run(loop, main)


def test_reading_is_paused_while_data_comes(loop: str, identity: Identity) -> None:
    class Choking(Told):
        calls = 0

        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            self.received += data
            self.calls += 1
            self.transport.pause_reading()

    async def main() -> None:
        async with Site(identity, Choking) as site:
            protocol, _, writer = await site.open()
            writer.write(LONG)
            while len(protocol.received) < len(LONG):
                calls = protocol.calls
                await turns(2)
                assert protocol.calls <= calls + 1
                protocol.transport.resume_reading()
            assert protocol.received == LONG
            assert protocol.calls >= len(LONG) >> 14

    run(loop, main)


def test_paused_in_connection_made(loop: str, identity: Identity) -> None:
    """Even if the first request came together with the end of the handshake."""

    class Shy(Told):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async def main() -> None:
        async with Site(identity, Shy) as site, Records(site) as client:
            await client.send(b"early")
            await until(lambda: site.protocols)
            await turns(3)
            assert site.protocols[0].received == b""
            site.protocols[0].transport.resume_reading()
            await until(lambda: site.protocols[0].received == b"early")

    run(loop, main)


@pytest.mark.parametrize(("high", "low"), [(0, 0), (1, 1), (1 << 16, None), (1 << 20, 1000)])
def test_write_marks(loop: str, identity: Identity, high: int, low: int | None) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            protocol, reader, _ = await site.open()
            transport = protocol.transport
            transport.set_write_buffer_limits(high=high, low=low)
            lowest = high // 4 if low is None else low
            assert transport.get_write_buffer_limits() == (lowest, high)
            size = 1 << 24
            transport.write(bytes(size))
            assert transport.get_write_buffer_size() > high
            assert protocol.told == ["made", "pause"]  # from within the call, as asyncio does it
            await reader.readexactly(size)
            await until(lambda: protocol.told == ["made", "pause", "resume"])
            assert transport.get_write_buffer_size() <= lowest

    run(loop, main)


def test_write_marks_that_do_not_fit(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            protocol, _, _ = await site.open()
            with pytest.raises(ValueError, match="must be at least"):
                protocol.transport.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(TypeError, match="bytes, bytearray or memoryview"):
                protocol.transport.write("text")
            assert not protocol.transport.can_write_eof()
            with pytest.raises(NotImplementedError, match="half closed"):
                protocol.transport.write_eof()

    run(loop, main)


def test_streams_wait_for_each_other(loop: str, identity: Identity) -> None:
    """Megabytes both ways at once, through readers and writers that are told to pause."""

    async def main() -> None:
        async with Site(identity, Echo) as site:
            reader, writer = await site.connect()

            async def send() -> None:
                for _ in range(16):
                    writer.write(LONG)
                    await writer.drain()

            sending = asyncio.ensure_future(send())
            for _ in range(16):
                assert await reader.readexactly(len(LONG)) == LONG
            await sending

    run(loop, main)


@pytest.mark.parametrize("keeps_open", [True, False])
def test_the_end_of_the_peers_half(loop: str, identity: Identity, keeps_open: bool) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            async with Records(site) as client:
                await until(lambda: site.protocols)
                protocol = site.protocols[0]
                protocol.keeps_open = keeps_open
                await client.say_goodbye()
                await until(lambda: "eof" in protocol.told)
                await turns(3)
                assert protocol.transport.is_closing() is not keeps_open
                if keeps_open:
                    protocol.transport.write(b"still talking")
                    protocol.transport.close()
                await protocol.lost
            assert protocol.told == ["made", "eof", "lost"]

    run(loop, main)


@pytest.mark.parametrize("keeps_open", [True, False])
def test_a_stream_that_is_cut_off(loop: str, identity: Identity, keeps_open: bool) -> None:
    """To asyncio's protocols it is an end like any other, but nothing can be written behind it."""

    async def main() -> None:
        async with Site(identity, Told) as site:
            async with Records(site) as client:
                await client.send(b"half a sen")
                await until(lambda: site.protocols and site.protocols[0].received)
                protocol = site.protocols[0]
                protocol.keeps_open = keeps_open
                client.sock.shutdown(socket.SHUT_WR)
                await until(lambda: "eof" in protocol.told)
                await protocol.lost
            assert protocol.told == ["made", "eof", "lost"]

    run(loop, main)


def test_a_peer_that_resets(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            async with Records(site) as client:
                await until(lambda: site.protocols)
                reset(client.sock)
            protocol = site.protocols[0]
            await protocol.lost
            assert isinstance(protocol.told[-1], ConnectionResetError)
            assert isinstance(protocol.told[-1], PeerError)

    run(loop, main)


def test_a_peer_that_breaks_the_protocol(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            async with Records(site) as client:
                await until(lambda: site.protocols)
                await asyncio.get_running_loop().sock_sendall(client.sock, b"\x17\x03\x03\x00\x20" + bytes(32))
                protocol = site.protocols[0]
                await protocol.lost
            assert isinstance(protocol.told[-1], ssl.SSLError)
            assert "\n" not in str(protocol.told[-1])

    run(loop, main)


@pytest.mark.parametrize("size", [10, 1 << 22])
def test_close_sends_what_is_buffered(loop: str, identity: Identity, size: int) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            async with Records(site) as client:
                await until(lambda: site.protocols)
                protocol = site.protocols[0]
                transport = protocol.transport
                transport.write(b"x" * size)
                transport.close()
                transport.close()
                assert transport.is_closing()
                assert not transport.is_reading()
                transport.write(b"dropped")
                await client.send(b"nobody listens")
                assert await client.read(size) == b"x" * size
                assert await client.read(1) == b""
                await client.say_goodbye()
                await protocol.lost
            assert protocol.told[0] == "made"
            assert protocol.told[-1] == "lost"
            assert protocol.received == b""
            transport.write(b"dropped")
            transport.abort()
            transport.close()
            assert transport.get_write_buffer_size() == 0
            with pytest.raises(RuntimeError, match="no protocol any more"):
                transport.get_protocol()

    run(loop, main)


def test_abort_drops_what_is_buffered(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            protocol, reader, _ = await site.open()
            transport = protocol.transport
            transport.write(bytes(1 << 24))
            transport.abort()
            transport.abort()
            assert transport.is_closing()
            assert "lost" not in protocol.told  # not from within the call
            await protocol.lost
            with contextlib.suppress(ConnectionError):  # some loops take the reset for an end
                while await reader.read(1 << 20):
                    pass

    run(loop, main)


def test_a_goodbye_without_an_answer(loop: str, identity: Identity) -> None:
    """close_notify and FIN are sent; whoever never answers is given up at the deadline."""

    async def main() -> None:
        async with Site(identity, Told, ssl_shutdown_timeout=0.2) as site, Records(site) as client:
            await until(lambda: site.protocols)
            protocol = site.protocols[0]
            started = asyncio.get_running_loop().time()
            protocol.transport.close()
            assert await client.read(1) == b""
            await turns(5)
            assert not protocol.lost.done()
            await protocol.lost
            assert asyncio.get_running_loop().time() - started >= 0.19
            assert protocol.told == ["made", "lost"]

    run(loop, main)


def test_a_peer_that_takes_nothing(loop: str, identity: Identity) -> None:
    """Closing waits for it, as asyncio does: abort() does not."""

    async def main() -> None:
        async with Site(identity, Told, ssl_shutdown_timeout=0.05) as site, Records(site):
            await until(lambda: site.protocols)
            protocol = site.protocols[0]
            protocol.transport.write(bytes(1 << 24))
            protocol.transport.close()
            await turns(100)
            assert not protocol.lost.done()
            protocol.transport.abort()
            await protocol.lost

    run(loop, main)


NAMES = ("cipher", "compression", "peercert", "peername", "sockname")


@pytest.mark.parametrize("version", VERSIONS)
def test_extra_info_as_asyncio_tells_it(loop: str, identity: Identity, version: str) -> None:
    """The same handshake, told by our server and by the standard library's."""

    async def main() -> None:
        here = asyncio.get_running_loop()
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(identity.cert, identity.key)
        told: list[Told] = []

        def factory() -> Told:
            told.append(Told())
            return told[-1]

        server = await here.create_server(factory, "127.0.0.1", 0, ssl=theirs)
        async with Site(identity, Told, version=version) as site:
            ours, _, writer = await site.open()
            _, other = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=site.client, server_hostname="localhost"
            )
            await until(lambda: told and told[0].transport)
            for name in NAMES[:3]:
                assert ours.transport.get_extra_info(name) == told[0].transport.get_extra_info(name), name
            assert ours.transport.get_extra_info("peername") == writer.get_extra_info("sockname")
            assert ours.transport.get_extra_info("sockname") == site.address
            info = ours.transport.get_extra_info
            assert info("socket").getsockname() == site.address
            assert info("socket").family == socket.AF_INET
            assert info("sslcontext") is site._context
            assert info("ssl_object").version() == info("tls").version == f"TLSv{version}"
            assert info("no such thing") is None
            assert info("no such thing", 5) == 5
            other.close()
            await other.wait_closed()
            ours.transport.abort()
            await ours.lost
            assert info("cipher") is not None  # also after the end
            assert info("peername") == writer.get_extra_info("sockname")
            assert info("sockname") is None or info("sockname") == site.address
        server.close()
        await told[0].lost

    run(loop, main)


@pytest.mark.parametrize("moment", ["connection_made", "data_received", "held", "between"])
def test_set_protocol(loop: str, identity: Identity, moment: str) -> None:
    """At any moment; the new one is not told ``connection_made``, and hears of everything else."""
    new: list[Told] = []

    class Old(Told):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if moment == "connection_made":
                switch(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if moment == "data_received":
                switch(self.transport)

    def switch(transport: Any) -> None:
        new.append(Told())
        transport.set_protocol(new[0])
        assert transport.get_protocol() is new[0]

    async def main() -> None:
        async with Site(identity, Old) as site:
            old, reader, writer = await site.open()
            if moment == "held":
                old.transport.write(b"held")
                switch(old.transport)
                assert await reader.readexactly(4) == b"held"
            elif moment == "between":
                switch(old.transport)
            elif moment == "data_received":
                writer.write(b"first")
                await until(lambda: old.received == b"first")
            writer.write(b"second")
            await until(lambda: new[0].received == b"second")
            writer.close()
            await new[0].lost
            assert new[0].told == ["eof", "lost"]
            assert old.told == ["made"]

    run(loop, main)
