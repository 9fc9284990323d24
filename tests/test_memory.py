"""What an idle connection and a parked handshake cost. docs/performance.md has the figures of whole servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import engine_shim
from support.clients import Target, python_context
from support.memory_server import MemoryServer
from support.storm import Storm

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from support.certificates import Identity

VERSIONS = ("1.2", "1.3")
RECORD = 16 * 1024

# From 3.2 on OpenSSL has a record layer of 4.4 KB for each direction.
_HAS_RECORD_LAYERS = engine_shim.attach().openssl_version_number >= 0x30200000

# Bytes of one connection, by malloc's account: 3,300 are ours, the others OpenSSL's. They vary by 100 from run to run.
IDLE_MOST = 26_100 if _HAS_RECORD_LAYERS else 18_400
# Bytes of one handshake in resident memory, beyond the 512th: here they vary by a page.
PARKED_MOST = 64_000 if _HAS_RECORD_LAYERS else 59_000


def _allocated_by_one(server: MemoryServer, context: ssl.SSLContext, use: Callable[[Storm], object]) -> float:
    """Compare 300 connections with 100: what is made once is made by then."""
    with Storm(server.address, 100, context) as few:
        few.handshake()
        use(few)
        before = server.idle(100)
        with Storm(server.address, 200, context) as more:
            more.handshake()
            use(more)
            after = server.idle(300)
    return (after.allocated - before.allocated) / 200


@pytest.mark.parametrize("engine", ["off", "threads"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_idle_connection(engine: str, version: str, identity: Identity) -> None:
    with MemoryServer(identity, engine) as server:
        context = python_context(Target(server.address[1], identity, version))
        assert _allocated_by_one(server, context, lambda _storm: None) < IDLE_MOST


def test_an_idle_connection_keeps_nothing_of_its_last_request(identity: Identity) -> None:
    with MemoryServer(identity, "off") as server:
        context = python_context(Target(server.address[1], identity, "1.3"))
        assert _allocated_by_one(server, context, lambda storm: storm.echo(bytes(RECORD))) < IDLE_MOST


def test_parked_handshakes_beyond_some_hundred_keep_no_more_of_their_stacks_than_they_stand_on(
    identity: Identity,
) -> None:
    with MemoryServer(identity, "manual") as server, ThreadPoolExecutor(4) as pool:
        context = python_context(Target(server.address[1], identity, "1.3"))
        storms, parked, resident = [], 0, []
        for count in (100, 400, 20, 300):
            storms.append(Storm(server.address, count, context))
            pool.submit(storms[-1].handshake)
            parked += count
            resident.append(server.parked(parked).resident)
        first, last = (resident[1] - resident[0]) / 400, (resident[3] - resident[2]) / 300
        server.perform(parked)
        server.idle(parked)
        for storm in storms:
            storm.close()
    assert first - last > 4_000
    assert last < PARKED_MOST
