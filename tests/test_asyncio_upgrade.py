"""TLS on connections that exist: start_tls on plain transports of both loops, and sockets accepted elsewhere."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio as tls_asyncio
from support.aio import LOOPS, VERSIONS, Echo, Site, Told, client_context, home, run, server_context, turns, until

if TYPE_CHECKING:
    from typing_extensions import Self

    from engine_shim import ManualEngine
    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


class Plain:
    """Two ends of a plain connection on the running loop; an async context manager.

    Attributes:
        near: The protocol of the accepted end; its transport is to be upgraded.
        far: The same of the other end.
    """

    near: Told
    far: Told

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        made: list[Told] = []

        def factory() -> Told:
            made.append(Told())
            return made[-1]

        self._server = await loop.create_server(factory, "127.0.0.1", 0)
        _, self.far = await loop.create_connection(Told, *self._server.sockets[0].getsockname())
        await until(lambda: made and made[0].transport)
        self.near = made[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for protocol in (self.near, self.far):
            protocol.transport.abort()
        await turns(5)


async def upgraded(plain: Plain, identity: Identity, **ours: Any) -> tuple[Any, Any]:
    """Upgrade both ends: ours at the near end, the standard library's at the far end."""
    loop = asyncio.get_running_loop()
    context = client_context(identity.ca, ours.pop("version", None))
    return await asyncio.gather(
        tls_asyncio.start_tls(
            loop,
            plain.near.transport,
            plain.near,
            ours.pop("context", None) or server_context(identity),
            server_side=True,
        ),
        loop.start_tls(plain.far.transport, plain.far, context, server_hostname="localhost"),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_server_side(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        async with Plain() as plain:
            near, far = await upgraded(plain, identity, version=version)
            near.write(b"from the server")
            far.write(b"from the client")
            await until(lambda: plain.far.received == b"from the server" and plain.near.received == b"from the client")
            assert near.get_protocol() is plain.near
            assert near.get_extra_info("tls").version == f"TLSv{version}"
            far.close()
            near.close()
            await asyncio.gather(plain.near.lost, plain.far.lost)
            assert plain.near.told.count("made") == 1

    run(loop, main)


@pytest.mark.parametrize("version", VERSIONS)
def test_client_side(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(identity.cert, identity.key)
        ours = Site(identity, version=version).own_client()
        here = asyncio.get_running_loop()
        async with Plain() as plain:
            near, far = await asyncio.gather(
                here.start_tls(plain.near.transport, plain.near, theirs, server_side=True),
                here.start_tls(plain.far.transport, plain.far, ours, server_hostname="localhost"),  # type: ignore[arg-type]
            )
            assert isinstance(far, tls_asyncio.Transport)
            far.write(b"hi")
            await until(lambda: plain.near.received == b"hi")
            plain.far.transport.abort()
            far.close()
            assert near is not None
            near.close()
            await asyncio.gather(plain.near.lost, plain.far.lost)

    run(loop, main)


@pytest.mark.parametrize("size", [10, 1 << 24])
def test_unsent_data_goes_first(loop: str, identity: Identity, size: int) -> None:
    """However much, and whether the protocol was told to pause; that one is told to go on."""

    async def main() -> None:
        async with Plain() as plain:
            plain.near.transport.write(bytes(size))
            paused = "pause" in plain.near.told
            assert paused is (size > 10)
            upgrade = asyncio.ensure_future(
                tls_asyncio.start_tls(
                    asyncio.get_running_loop(),
                    plain.near.transport,
                    plain.near,
                    server_context(identity),
                    server_side=True,
                )
            )
            await until(lambda: len(plain.far.received) == size)
            context = client_context(identity.ca)
            here = asyncio.get_running_loop()
            far = await here.start_tls(plain.far.transport, plain.far, context, server_hostname="localhost")
            near = await upgrade
            assert plain.near.told == (["made", "pause", "resume"] if paused else ["made"])
            near.close()
            assert far is not None
            far.close()
            await asyncio.gather(plain.near.lost, plain.far.lost)

    run(loop, main)


def test_the_clients_hello_came_early(loop: str, identity: Identity) -> None:
    """It lies in the socket, because reading was paused."""

    async def main() -> None:
        async with Plain() as plain:
            here = asyncio.get_running_loop()
            plain.near.transport.pause_reading()
            context = client_context(identity.ca)
            upgrade = asyncio.ensure_future(
                here.start_tls(plain.far.transport, plain.far, context, server_hostname="localhost")
            )
            await turns(5)
            near = await tls_asyncio.start_tls(
                here, plain.near.transport, plain.near, server_context(identity), server_side=True
            )
            far = await upgrade
            assert far is not None
            near.close()
            far.close()
            await asyncio.gather(plain.near.lost, plain.far.lost)

    run(loop, main)


def test_within_a_callback(loop: str, identity: Identity) -> None:
    """STARTTLS: the protocol itself begins, when it is told to."""
    started: list[Any] = []

    class Starting(Told):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"STARTTLS\n":
                self.transport.write(b"go\n")
                here = asyncio.get_running_loop()
                upgrade = tls_asyncio.start_tls(here, self.transport, self, server_context(identity), server_side=True)
                started.append(asyncio.ensure_future(upgrade))

    async def main() -> None:
        here = asyncio.get_running_loop()
        server = await here.create_server(Starting, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        transport = await here.start_tls(
            writer.transport, writer.transport.get_protocol(), client_context(identity.ca), server_hostname="localhost"
        )
        near = await started[0]
        near.write(b"in secret")
        assert await reader.readexactly(9) == b"in secret"
        near.abort()
        assert transport is not None
        transport.abort()
        server.close()
        await turns(5)

    run(loop, main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls is new in Python 3.11")
def test_stream_writers(loop: str, identity: Identity) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\n")
        upgrade: Any = writer.start_tls  # type: ignore[attr-defined] # Python 3.11
        await upgrade(server_context(identity))
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        ours = Site(identity).own_client()
        upgrade: Any = writer.start_tls  # type: ignore[attr-defined] # the same
        await upgrade(ours, server_hostname="localhost")
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        server.close()
        await turns(5)

    run(loop, main)


def test_closed_transports(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Plain() as plain:
            plain.near.transport.close()
            here = asyncio.get_running_loop()
            with pytest.raises(ConnectionResetError, match="is closed"):
                await tls_asyncio.start_tls(
                    here, plain.near.transport, plain.near, server_context(identity), server_side=True
                )
            await plain.near.lost

    run(loop, main)


@pytest.mark.parametrize("leaves", [True, False], ids=["cancelled", "peer-leaves"])
def test_ends_while_unsent_data_goes_first(loop: str, identity: Identity, leaves: bool) -> None:
    async def main() -> None:
        async with Plain() as plain:
            plain.far.transport.pause_reading()
            plain.near.transport.write(bytes(1 << 24))
            here = asyncio.get_running_loop()
            upgrade = asyncio.ensure_future(
                tls_asyncio.start_tls(
                    here, plain.near.transport, plain.near, server_context(identity), server_side=True
                )
            )
            await turns(3)
            if leaves:
                upgrade.cancel()
            else:
                plain.far.transport.abort()
            with pytest.raises(asyncio.CancelledError if leaves else ConnectionError):
                await upgrade
            await plain.near.lost
            assert home().hub.drivers == set()

    run(loop, main)


@pytest.mark.parametrize("moment", ["handshaking", "parked"])
@pytest.mark.parametrize("how", ["cancel", "leave", "timeout"])
def test_ends_in_the_handshake(loop: str, identity: Identity, manual: ManualEngine, moment: str, how: str) -> None:
    async def main() -> None:
        async with Plain() as plain:
            here = asyncio.get_running_loop()
            context = server_context(identity, manual)
            timeout = 0.1 if how == "timeout" else None
            upgrade = asyncio.ensure_future(
                tls_asyncio.start_tls(
                    *(here, plain.near.transport, plain.near, context), server_side=True, ssl_handshake_timeout=timeout
                )
            )
            await turns(2)
            if moment == "parked":
                plain.far.transport.write(Site(identity).hello())
                await until(lambda: manual.pending or how == "timeout")
            else:
                await turns(3)
            if how == "cancel":
                upgrade.cancel()
            elif how == "leave":
                plain.far.transport.abort()
            expected = {
                "cancel": asyncio.CancelledError,
                "leave": ConnectionResetError,
                "timeout": ConnectionAbortedError,
            }
            with pytest.raises(expected[how]):
                await upgrade
            await until(lambda: not home().hub.drivers)
            assert manual.pending == 0

    run(loop, main)


def test_tls_within_tls(loop: str, identity: Identity) -> None:
    """The standard library's may run within ours; ours cannot, because it needs the socket."""

    async def main() -> None:
        here = asyncio.get_running_loop()
        async with Site(identity, Told) as site:
            protocol, _, writer = await site.open()
            with pytest.raises(TypeError, match=r"TLS within TLS needs an ssl\.SSLContext"):
                await tls_asyncio.start_tls(
                    here, protocol.transport, protocol, server_context(identity), server_side=True
                )
            if loop == "uvloop":  # its start_tls takes its own transports only
                return
            theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            theirs.load_cert_chain(identity.cert, identity.key)
            inner = Told()
            near, far = await asyncio.gather(
                here.start_tls(protocol.transport, inner, theirs, server_side=True),
                here.start_tls(writer.transport, Echo(), site.client, server_hostname="localhost"),
            )
            assert near is not None
            assert far is not None
            far.write(b"within")
            await until(lambda: inner.received == b"within")
            near.abort()
            far.abort()
            await turns(3)

    run(loop, main)


def test_what_cannot_be_upgraded(loop: str, identity: Identity) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        async with Plain() as plain:
            near = plain.near.transport
            for error, said, context, options in (
                (TypeError, "ssl is a ssl.SSLContext", client_context(identity.ca), {}),
                (ValueError, "needs server_hostname", Site(identity).own_client(), {}),
                (TypeError, "cannot make connections", server_context(identity), {}),
                (TypeError, "cannot accept connections", Site(identity).own_client(), {"server_side": True}),
                (TypeError, "argument 'colour'", Site(identity).own_client(), {"server_hostname": "x", "colour": 1}),
            ):
                with pytest.raises(error, match=said):
                    await tls_asyncio.start_tls(here, near, plain.near, context, **options)  # type: ignore[arg-type]
            assert not near.is_closing()  # it was found out before the connection was touched

    run(loop, main)


@pytest.mark.parametrize("version", VERSIONS)
def test_sockets_accepted_elsewhere(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            connecting = asyncio.ensure_future(
                asyncio.open_connection(
                    *listening.getsockname(), ssl=client_context(identity.ca, version), server_hostname="localhost"
                )
            )
            await turns(3)
            accepted, _ = listening.accept()
        transport, protocol = await here.connect_accepted_socket(Echo, accepted, ssl=server_context(identity))  # type: ignore[arg-type]
        assert isinstance(protocol, Echo)
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        reader, writer = await connecting
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        transport.abort()
        writer.transport.abort()
        await turns(3)
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, pytest.raises(ValueError, match="Stream Socket"):
            await tls_asyncio.connect_accepted_socket(here, Echo, datagrams, ssl=server_context(identity))

    run(loop, main)
