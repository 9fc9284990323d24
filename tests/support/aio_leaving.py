"""Clients that leave a server on asyncio's loop at every moment, and tasks that are cancelled in every state."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import tlsserver.asyncio as tls_asyncio
from support.aio import Records, Site, Told, until
from support.clients import reset
from tlsserver import ClientCertificates

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from engine_shim import ManualEngine
    from support.certificates import Identity


class Scene:
    """A server and its engine on the running loop; an async context manager.

    Args:
        identity: Of the server, and of clients that are asked for a certificate.
        manual: Has the server's key.
        version: Of TLS.
    """

    def __init__(self, identity: Identity, manual: ManualEngine, version: str) -> None:
        self.manual = manual
        self.site = Site(identity, Told, engine=manual, version=version)
        wants = ClientCertificates("required", ca_certs=identity.ca)
        self.asking = Site(identity, Told, context=self._asking_context(identity, wants), version=version)
        self.ours = self.site.own_client()
        self.mine = self.site.own_client(certificate=identity.cert, key=manual.load_key(identity.key))
        self.hello = self.site.hello()

    @staticmethod
    def _asking_context(identity: Identity, wants: ClientCertificates) -> Any:
        from support.aio import server_context  # noqa: PLC0415 - for this one

        return server_context(identity, client_certificates=wants)

    async def __aenter__(self) -> Self:
        await self.site.__aenter__()
        await self.asking.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.site.__aexit__()
        await self.asking.__aexit__()

    async def until_empty(self) -> None:
        """Wait until every connection is gone."""
        await until(lambda: not (self.site.numbers.connections_open or self.asking.numbers.connections_open))
        self.site.protocols.clear()
        self.asking.protocols.clear()


async def _raw(scene: Scene, data: bytes, way: Callable[[socket.socket], object]) -> None:
    came = scene.site.numbers.connections_accepted
    sock = await scene.site.raw(data)
    await until(lambda: scene.site.numbers.connections_accepted > came)
    way(sock)


def fin(sock: socket.socket) -> None:
    """Close."""
    sock.close()


async def before(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Say nothing."""
    await _raw(scene, b"", way)


async def in_hello(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Say half of the ClientHello."""
    await _raw(scene, scene.hello[: len(scene.hello) // 2], way)


async def parked(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Leave while the operation is in the engine."""
    sock = await scene.site.raw(scene.hello)
    await until(lambda: scene.manual.pending)
    way(sock)


async def answered(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Leave as the answer comes."""
    sock = await scene.site.raw(scene.hello)
    await until(lambda: scene.manual.pending)
    scene.manual.perform()
    way(sock)


async def _open(scene: Scene) -> Records:
    client = Records(scene.site)
    opening = asyncio.ensure_future(client.__aenter__())
    await until(lambda: scene.manual.pending)
    scene.manual.perform()
    await opening
    await until(lambda: scene.site.protocols and scene.site.protocols[-1].transport)
    return client


async def finished(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Leave when the handshake is done."""
    way((await _open(scene)).sock)


async def half_closed(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Say goodbye, and leave before the answer."""
    client = await _open(scene)
    scene.site.protocols[-1].keeps_open = True
    await client.say_goodbye()
    await until(lambda: "eof" in scene.site.protocols[-1].told)
    scene.site.protocols[-1].transport.close()
    way(client.sock)


async def in_flight(scene: Scene, way: Callable[[socket.socket], object]) -> None:
    """Leave with data on its way in both directions."""
    client = await _open(scene)
    await client.send(b"x" * 5000)
    scene.site.protocols[-1].transport.write(bytes(100_000))
    scene.site.protocols[-1].transport.write(b"held")
    way(client.sock)


async def cancelled(scene: Scene, _way: object) -> None:
    """Cancel our client's task: at once, in the server's handshake, in its own engine."""
    here = asyncio.get_running_loop()
    for context, site, parks in (
        (scene.ours, scene.site, False),
        (scene.ours, scene.site, True),
        (scene.mine, scene.asking, True),
    ):
        connect = tls_asyncio.create_connection(here, Told, *site.address, ssl=context, server_hostname="localhost")
        task = asyncio.ensure_future(connect)
        if parks:
            await until(lambda: scene.manual.pending)
        else:
            await asyncio.wait([task], timeout=0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ssl.SSLError):
            await task
        await until(lambda: not scene.manual.pending)


MOMENTS: tuple[Callable[[Scene, Any], Awaitable[None]], ...] = (
    *(before, in_hello, parked, answered, finished, half_closed, in_flight, cancelled),
)
WAYS: tuple[Callable[[Any], object], ...] = (fin, reset)
