"""Handshakes on trio that park: whatever may end them, at every moment."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
from helpers_server import make_context

import engine_shim
import tlsserver
from engine_shim import LatencyEngine, ManualEngine, ThreadEngine
from support.running import check_jobs
from support.trio_scene import Scene, echo_and_close, fill_pool, refused, scene, until, until_parked, visit
from tlsserver.errors import ConnectionTimeoutError, PeerLeftError
from tlsserver.trio import TLSStream, task_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("no_leaks", "jobs_end")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])

wait_fds = pytest.fixture(scope="module", autouse=True)(fill_pool)


def before(_house: Scene) -> bytes:
    return b""


def in_hello(house: Scene) -> bytes:
    return house.hello()[:50]


def whole_hello(house: Scene) -> bytes:
    return house.hello()


MOMENTS: dict[str, tuple[Callable[[Scene], bytes], tuple[str, ...]]] = {
    "before": (before, ()),
    "in_hello": (in_hello, ()),
    "parked": (whole_hello, ()),
    "begun": (whole_hello, ("begin",)),
    "delivered": (whole_hello, ("perform",)),
}


async def come_to(house: Scene, engine: ManualEngine, moment: str) -> tuple[TLSStream, socket.socket]:
    """Bring a handshake to where something is to happen to it."""
    said, steps = MOMENTS[moment]
    near, far = await house.say(said(house))
    if said is whole_hello:
        await until_parked()
    for step in steps:
        getattr(engine, step)()
    return near, far


@VERSIONS
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("end", ["cancelled", "closed", "client", "reset", "run"])
def test_handshake_that_ends_early(identity: Identity, version: str, moment: str, end: str) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine), version) as house:
            near, far = await come_to(house, engine, moment)
            with far:
                if end == "cancelled":
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(near.do_handshake)
                            scope.cancel()
                    await refused(near.do_handshake, trio.BrokenResourceError)
                elif end == "closed":
                    await near.aclose()
                    await refused(near.do_handshake, trio.ClosedResourceError)
                elif end == "run":
                    near._stream._is_closed = True  # it is not forgotten, but in use when the run ends
                    return
                else:
                    if end == "reset":
                        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    far.close()
                    error = await refused(near.do_handshake, trio.BrokenResourceError)
                    assert isinstance(error.__cause__, PeerLeftError)
            await until(lambda: not task_loop().hub.drivers)
            await near.aclose()

    with ManualEngine() as engine:
        trio.run(main, engine)
        check_jobs() if moment != "begun" else None


def test_cancelled_receive_leaves_the_handshake_alone(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            near, far = await house.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, b"after all")
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(near.receive_some)
                        inner.start_soon(near.send_all, b"never")
                        await until_parked()
                        scope.cancel()
                engine.perform()
                assert await near.receive_some() == b"after all"
            await near.send_all(b"answer")
            assert await far.receive_some() == b"answer"
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_parked_time_counts(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine), handshake_timeout=0.1) as house:
            near, far = await house.say(house.hello())
            error = await refused(near.do_handshake, trio.BrokenResourceError)
            assert isinstance(error.__cause__, ConnectionTimeoutError)
            assert "still in the engine" in str(error)
            far.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_failed_operation(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            near, far = await house.say(house.hello())
            await until_parked()
            engine.fail()
            error = await refused(near.receive_some, trio.BrokenResourceError)
            assert isinstance(error.__cause__, tlsserver.EngineError)
            far.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_without_enough_jobs(identity: Identity) -> None:
    """Whoever gets none waits for those who have one."""

    async def main(engine: LatencyEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo_and_close, [house.listener])
            async with trio.open_nursery() as clients:
                for _ in range(6):
                    clients.start_soon(visit, house)
            assert task_loop().counters.parked_max == 1
            nursery.cancel_scope.cancel()

    engine_shim.init_thread(1, 0)
    with LatencyEngine(0.01) as engine:
        trio.run(main, engine)
    engine_shim.cleanup_thread()


def test_question_answered_by_a_task(identity: Identity) -> None:
    async def main(engine: ThreadEngine) -> None:
        send, receive = trio.open_memory_channel[tlsserver.ClientHelloRequest](10)
        given = tlsserver.Certificate(identity.cert, engine.load_key(identity.key))
        context = tlsserver.TLSContext(identity.cert, identity.key, on_client_hello=send.send_nowait)
        async with scene(identity, context) as house, trio.open_nursery() as nursery:
            near, far = await house.connect()
            nursery.start_soon(far.do_handshake)
            request = await receive.receive()
            assert request.server_name == "localhost"
            await trio.testing.wait_all_tasks_blocked()
            request.complete(given)
            await near.do_handshake()
            assert near.park.parks == 2
            await trio.aclose_forcefully(near)
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(far)

    with ThreadEngine(1) as engine:
        trio.run(main, engine)
