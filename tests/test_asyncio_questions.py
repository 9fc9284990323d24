"""Handshakes that ask the application, and signers that answer from Python, on asyncio's loops."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from support.aio import LOOPS, VERSIONS, Site, run, turns, until
from support.key_server import KeyServer
from support.naming import asking_context
from tlsserver import Certificate, TLSContext
from tlsserver.signers.remote import RemoteSigner

if TYPE_CHECKING:
    from pathlib import Path

    from engine_shim import ManualEngine
    from support.certificates import Certificates, Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


@pytest.mark.parametrize("version", VERSIONS)
def test_which_certificate(loop: str, certificates: Certificates, manual: ManualEngine, version: str) -> None:
    """Asked on the loop, answered later by a task, with a key in an engine that the loop has not met."""
    identity, other = certificates["p256"], certificates["p384"]
    asked: list[Any] = []

    async def main() -> None:
        async with Site(identity, context=asking_context(identity, asked.append), version=version) as site:
            connecting = asyncio.ensure_future(site.connect())
            await until(lambda: asked)
            await turns(3)
            assert site.numbers.parked_now == 1
            asked[0].complete(Certificate(other.cert, manual.load_key(other.key)))
            await until(lambda: manual.pending)
            manual.perform()
            reader, writer = await connecting
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
            assert site.numbers.questions_answered == 1
        asked.clear()

    run(loop, main)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_remote_signer(loop: str, identity: Identity, tmp_path: Path, version: str) -> None:
    """Its connections to the key server are served by the same loop."""

    async def main() -> None:
        context = TLSContext(identity.cert, signer.load_key(identity.cert))
        async with Site(identity, context=context, version=version) as site:
            await asyncio.gather(*(site.connect() for _ in range(10)))
            await until(lambda: site.numbers.handshakes_completed == 10)
            assert site.numbers.handshakes_parked == 10

    with KeyServer([identity], tmp_path / "s") as server, RemoteSigner([server.address]) as signer:
        run(loop, main)
        assert len(server.requests) == 10


def test_nobody_answers(loop: str, identity: Identity) -> None:
    asked: list[Any] = []

    async def main() -> None:
        async with Site(identity, context=asking_context(identity, asked.append), ssl_handshake_timeout=0.1) as site:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await site.connect()
            assert not asked[0].is_open
            sock = await site.raw(site.hello())
            await until(lambda: len(asked) == 2)
            sock.close()
            await until(lambda: not site.numbers.connections_open)
        asked.clear()

    run(loop, main)


def test_closed_with_a_question_open(loop: str, identity: Identity) -> None:
    """An answer after the loop's end is nobody's."""
    asked: list[Any] = []

    async def main() -> None:
        site = Site(identity, context=asking_context(identity, asked.append))
        await site.__aenter__()
        sockets.append(await site.raw(site.hello()))
        await until(lambda: asked)

    sockets: list[Any] = []
    run(loop, main)
    assert not asked[0].is_open
    sockets[0].close()
    asked.clear()
