"""However many handshakes wait for the engine, whoever is connected is served, on asyncio's loops too.

The times are in tests/benchmarks/asyncio_storm.py; here is what must hold on any machine.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from engine_shim import LatencyEngine
from support.aio import LOOPS, Site, home, run, turns
from support.clients import Crowd
from support.storm import Storm

if TYPE_CHECKING:
    from engine_shim import ManualEngine
    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]

HANDSHAKES, LATENCY = 100, 0.2


@pytest.mark.serial
def test_pings_go_on(loop: str, identity: Identity) -> None:
    """One after the other the handshakes would take 20 s."""
    took: list[float] = []

    async def ping(site: Site, storm: asyncio.Future[list[float]]) -> None:
        reader, writer = await site.connect()
        while not storm.done():
            start = time.perf_counter()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            took.append(time.perf_counter() - start)
            await turns()

    async def main() -> None:
        with LatencyEngine(LATENCY) as engine, ThreadPoolExecutor(1) as pool:
            async with Site(identity, engine=engine) as site:
                here = asyncio.get_running_loop()
                with await here.run_in_executor(pool, Storm, site.address, HANDSHAKES, site.client) as storm:
                    shaking = here.run_in_executor(pool, storm.handshake)
                    await ping(site, shaking)
                    assert max(shaking.result()) < 20 * LATENCY
                assert site.numbers.parked_max > HANDSHAKES // 2

    run(loop, main)
    assert len(took) > 20
    assert sorted(took)[len(took) // 2] < LATENCY / 2


def test_parked_handshakes_cost_no_turns(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """Nobody is polled, whoever is parked; and a ping needs no turn at all."""
    ends: list[int] = []

    async def main() -> None:
        async with Site(identity, engine=manual) as site:
            first = asyncio.ensure_future(site.connect())
            while not manual.pending:
                await turns()
            manual.perform()
            reader, writer = await first
            writer.write(b"ping")
            await reader.readexactly(4)
            with Crowd(site.address, HANDSHAKES) as crowd:
                crowd.send(site.hello())
                while site.numbers.parked_now < HANDSHAKES:
                    await turns()
                await turns(10)
                home().reactor.at_end_of_turn(lambda: ends.append(1))
                for _ in range(20):
                    writer.write(b"ping")
                    assert await reader.readexactly(4) == b"ping"
                assert len(ends) <= 2
                assert manual.pending == HANDSHAKES

    run(loop, main)
