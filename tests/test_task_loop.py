"""Many handshakes at once on one run, and what the run leaves behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio
from helpers_server import make_context

from engine_shim import LatencyEngine
from support.running import check_jobs
from support.trio_scene import ask, echo_and_close, scene, visit
from tlsserver.trio import task_loop

if TYPE_CHECKING:
    from support.certificates import Identity


@pytest.mark.serial  # it has to be quick
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_many_handshakes_at_once(identity: Identity, version: str) -> None:
    async def main(engine: LatencyEngine) -> None:
        async with scene(identity, make_context(identity, engine), version) as house, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo_and_close, [house.listener])
            far = trio.SSLStream(await trio.open_tcp_stream(*house.address), house.client, server_hostname="localhost")
            await ask(far)
            longest = 0.0
            begun = time.perf_counter()
            async with trio.open_nursery() as clients:
                for _ in range(200):
                    clients.start_soon(visit, house)
                while task_loop().counters.handshakes_completed < 201:
                    asked = time.perf_counter()
                    await ask(far)
                    longest = max(longest, time.perf_counter() - asked)
            assert 0.2 <= time.perf_counter() - begun < 2
            assert longest < 0.5
            assert task_loop().counters.parked_max > 100
            await trio.aclose_forcefully(far)
            nursery.cancel_scope.cancel()

    with LatencyEngine(0.2) as engine:
        trio.run(main, engine)
    check_jobs()
