"""However many handshakes wait for the engine, whoever is connected is served.

The times are in tests/benchmarks/latency_storm.py; here is only what must hold on any machine.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import pytest

from engine_shim import ManualEngine, ThreadEngine
from support.clients import Crowd, Target, client_hello, python_context
from support.rough import Bystander, Scene
from support.running import check_jobs
from support.storm import Storm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates

VERSIONS = ("1.2", "1.3")
PARKED = 200  # handshakes at once; both ends are in this process
PINGS = 20

# The order in which an engine answers is the test's to choose. Each gives the index of the next op, of so many.
ORDERS: dict[str, Callable[[int], int]] = {
    "oldest first": lambda _pending: 0,
    "newest first": lambda pending: pending - 1,
    "from the middle": lambda pending: pending // 2,
}


@pytest.fixture
def engine() -> Iterator[ManualEngine]:
    with ManualEngine() as engine:
        yield engine


@pytest.fixture(params=["rsa2048", "p256"])
def scene(request: pytest.FixtureRequest, certificates: Certificates, engine: ManualEngine) -> Iterator[Scene]:
    with Scene(certificates[request.param], engine) as scene:
        yield scene


@pytest.fixture
def executor() -> Iterator[concurrent.futures.Executor]:
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def bystander(scene: Scene, engine: ManualEngine, executor: concurrent.futures.Executor) -> Iterator[Bystander]:
    """Give a client that was there first."""
    connecting = executor.submit(Bystander, scene.target())
    scene.site.until(lambda numbers: numbers.parked_now == 1)
    engine.perform()
    bystander = connecting.result()
    bystander.ping()
    yield bystander
    bystander.close()


def test_requests_are_answered_while_handshakes_are_parked(
    scene: Scene, engine: ManualEngine, bystander: Bystander
) -> None:
    with Crowd(scene.site.address, PARKED) as crowd:
        crowd.send(client_hello(scene.target()))
        scene.site.until(lambda numbers: numbers.parked_now == PARKED)
        for _ in range(PINGS):
            bystander.ping()
        assert engine.pending == PARKED
    now = scene.site.until(lambda numbers: numbers.connections_open == 1)
    assert (now.parked_now, now.parked_max, now.ops_cancelled) == (0, PARKED, PARKED)


def test_parked_handshakes_cost_no_turns(scene: Scene, bystander: Bystander) -> None:
    """Nobody is polled: each ping is some turns of the loop, whoever else is parked."""
    with Crowd(scene.site.address, PARKED) as crowd:
        crowd.send(client_hello(scene.target()))
        scene.site.until(lambda numbers: numbers.parked_now == PARKED)
        before = scene.site.turns
        for _ in range(PINGS):
            bystander.ping()
        assert scene.site.turns - before <= 3 * PINGS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_each_answer_goes_to_the_handshake_that_asked(
    order: str,
    version: str,
    *,
    scene: Scene,
    engine: ManualEngine,
    bystander: Bystander,
    executor: concurrent.futures.Executor,
) -> None:
    """The client verifies the signature over its own handshake, so an answer to another would not do."""
    context = python_context(Target(scene.site.port, scene.identity, version))
    with Storm(scene.site.address, PARKED, context) as storm:
        shaking = executor.submit(storm.handshake)
        scene.site.until(lambda numbers: numbers.parked_now == PARKED)
        bystander.ping()
        for pending in range(PARKED, 0, -1):
            engine.perform(ORDERS[order](pending))
        assert len(shaking.result()) == PARKED
        now = scene.site.statistics()
        assert now.handshakes_completed == PARKED + 1
        assert now.park_seconds.count == PARKED + 1
    check_jobs()


def test_spurious_wake_ups_change_nothing(scene: Scene, engine: ManualEngine, bystander: Bystander) -> None:
    with Crowd(scene.site.address, PARKED) as crowd:
        crowd.send(client_hello(scene.target()))
        scene.site.until(lambda numbers: numbers.parked_now == PARKED)
        for index in range(PARKED):
            engine.wake(index)
        bystander.ping()
        now = scene.site.statistics()
        assert (now.parked_now, engine.pending) == (PARKED, PARKED)
        for _ in range(PARKED):
            engine.perform()
        crowd.receive()
        now = scene.site.until(lambda numbers: numbers.parked_now == 0)
        assert now.park_seconds.count == PARKED + 1


def test_failed_ops_fail_their_own_handshakes_only(scene: Scene, engine: ManualEngine, bystander: Bystander) -> None:
    with Crowd(scene.site.address, PARKED) as crowd:
        crowd.send(client_hello(scene.target()))
        scene.site.until(lambda numbers: numbers.parked_now == PARKED)
        for _ in range(PARKED // 2):
            engine.fail()
        now = scene.site.until(lambda numbers: numbers.handshakes_failed == PARKED // 2)
        assert now.parked_now == PARKED - PARKED // 2
        bystander.ping()
        while engine.pending:
            engine.perform()
        now = scene.site.until(lambda numbers: numbers.parked_now == 0)
        assert now.handshakes_failed == PARKED // 2


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_that_cannot_keep_up(version: str, certificates: Certificates) -> None:
    """Ops that find no room in the engine's queue wait in their connections, and each has its turn."""
    with ThreadEngine(threads=1, queue_size=1) as engine, Scene(certificates["rsa2048"], engine) as scene:
        context = python_context(scene.target(version))
        with Storm(scene.site.address, PARKED, context) as storm:
            storm.handshake()
            storm.echo(b"all are open")
        assert engine.statistics().queue_full > 0
        scene.is_well()


@pytest.mark.parametrize("version", VERSIONS)
def test_fewer_are_admitted_than_come(version: str, certificates: Certificates, engine: ManualEngine) -> None:
    """Ten at a time; the others wait in the kernel until a handshake ends."""
    with (
        Scene(certificates["p256"], engine, max_handshakes=10) as scene,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        context = python_context(scene.target(version))
        with Storm(scene.site.address, PARKED, context) as storm:
            shaking = pool.submit(storm.handshake)
            for done in range(0, PARKED, 10):
                scene.site.until(lambda numbers: numbers.parked_now == 10)
                assert engine.pending == 10
                for _ in range(10):
                    engine.perform()
                until_completed(scene, done + 10)
            assert len(shaking.result()) == PARKED
        assert scene.site.statistics().parked_max == 10


def until_completed(scene: Scene, count: int) -> None:
    scene.site.until(lambda numbers: numbers.handshakes_completed == count)
