"""What the connections of one run have in common: many handshakes at once, engines of all kinds, the end of the run."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from helpers_server import make_context

import tlsserver.task_loop
from engine_shim import LatencyEngine, ManualEngine
from support.key_server import KeyServer
from support.memory import alive
from support.running import check_jobs
from support.trio_scene import ask, echo_and_close, refused, scene, until, until_parked, visit
from tlsserver import TLSContext
from tlsserver.connection import Connection
from tlsserver.session import Session
from tlsserver.signers.remote import RemoteSigner
from tlsserver.task_stream import TaskStream
from tlsserver.testing import HELD, ScriptedProvider
from tlsserver.trio import TLSStream, task_loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity


@pytest.fixture(autouse=True)
def jobs() -> Iterator[None]:
    yield
    check_jobs()


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
            assert longest < 0.5  # the clients' own handshakes are in between
            assert task_loop().counters.parked_max > 100
            await trio.aclose_forcefully(far)
            nursery.cancel_scope.cancel()

    with LatencyEngine(0.2) as engine:
        trio.run(main, engine)


def test_nothing_is_left_of_connections(identity: Identity) -> None:
    def left() -> list[Any]:
        return alive(TaskStream, TLSStream, Connection, Session)

    async def main(engine: ManualEngine) -> None:
        context = make_context(identity, engine)
        async with scene(identity, context) as house:
            for _ in range(50):
                near, far = await house.say(house.hello())
                await until_parked()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await near.do_handshake()
                far.close()
                await near.aclose()
            house.listener.context = make_context(identity)
            for _ in range(20):
                first, second = await house.open()
                await trio.aclose_forcefully(second)
                await refused(first.receive_some, trio.BrokenResourceError)
                await first.aclose()
            del near, first
            await until(lambda: not task_loop().hub.drivers)
            gc.collect()
            assert left() == before

    gc.collect()
    before = left()
    with ManualEngine() as engine:
        trio.run(main, engine)


def test_operations_that_nobody_can_cancel(identity: Identity) -> None:
    """They go on without their connections; the end of the run waits for them, but not for ever."""

    async def main(provider: ScriptedProvider, end: str) -> None:
        context = TLSContext(identity.cert, provider.load_key(identity.key))
        async with scene(identity, context) as house:
            provider.script(HELD)
            near, far = await house.say(house.hello())
            await until_parked()
            await near.aclose()
            assert task_loop().counters.draining_now == 1
            far.close()
            if end == "within the run":
                provider.complete()
                await until(lambda: not task_loop().hub.drivers)
            elif end == "with the run":
                trio.lowlevel.spawn_system_task(complete_at_the_end, provider)

    async def complete_at_the_end(provider: ScriptedProvider) -> None:
        try:
            await trio.sleep_forever()
        finally:
            provider.complete()

    for end in ("within the run", "with the run"):
        with ScriptedProvider() as provider:
            trio.run(main, provider, end)
            check_jobs()


def test_operation_that_never_ends(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(provider: ScriptedProvider) -> None:
        async with scene(identity, TLSContext(identity.cert, provider.load_key(identity.key))) as house:
            provider.script(HELD)
            near, far = await house.say(house.hello())
            await until_parked()
            left.append(near)
            far.close()

    left: list[TLSStream] = []
    monkeypatch.setattr(tlsserver.task_loop, "_DRAIN_SECONDS", 0.05)
    with ScriptedProvider() as provider:
        trio.run(main, provider)
        assert "1 jobs have not ended within 0.1 s" in caplog.text
        provider.complete()
        driver = left[0]._stream._driver
        assert driver.connection._wire.close()  # nobody else does
        left[0].socket.close()


def test_signer_that_does_its_own_io_on_the_loop(identity: Identity, tmp_path: Path) -> None:
    async def main(signer: RemoteSigner) -> None:
        context = TLSContext(identity.cert, signer.load_key(identity.cert))
        async with scene(identity, context) as house:
            near, far = await house.open()
            assert near.park.parks >= 1
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    with KeyServer([identity], tmp_path / "keys") as keys, RemoteSigner([keys.address]) as signer:
        trio.run(main, signer)
        assert len(keys.requests) == 1


def test_more_contexts_than_are_kept(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        contexts = [make_context(identity) for _ in range(3)]
        async with scene(identity, contexts[0]) as house:
            for context in contexts + contexts:
                house.listener.context = context
                near, far = await house.open()
                await trio.aclose_forcefully(near)
                await trio.aclose_forcefully(far)
            assert len(task_loop()._offers) == 2

    monkeypatch.setattr(tlsserver.task_loop, "_OFFERS", 2)
    trio.run(main)
