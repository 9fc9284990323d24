"""Clients that leave before, while and after their handshake is parked.

Invariant: whatever a client does, and when, a connection that has ended leaves nothing behind: no descriptor, no
connection object, no op, no job that was started and has not finished, and no memory.

test_teardown_stress.py does the same with thousands of cycles, and looks at the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import ManualEngine, ThreadEngine
from support import leaks
from support.clients import Crowd, drain, python_context
from support.leaving import (
    HANDSHAKE_OVER,
    MOMENTS,
    REAL_ENGINES,
    REAL_MOMENTS,
    REAL_WAYS,
    WAYS,
    Scene,
    at_once,
    begun,
    check_gone,
    fin,
    forget_others,
    parked,
    rst,
    silence,
)
from support.storm import Storm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates, Identity
    from support.running import Clock

VERSIONS = ("1.2", "1.3")

IDLE_OVER = 301.0  # seconds: past the idle deadline

BATCH = 25  # clients at once
CYCLES = 100

# How the last record begins: an alert, or, encrypted, what has the length of one (RFC 5246, 6.2.1; RFC 8446, 5.2).
ALERTS = {"1.2": b"\x15\x03\x03\x00\x02", "1.3": b"\x17\x03\x03\x00\x13"}


@pytest.fixture(autouse=True)
def only_ours() -> None:
    forget_others()


@pytest.fixture(scope="module")
def warm(certificates: Certificates) -> None:
    """Fill what is kept for good: wait fds are used again, so there are as many as were ever parked at one time."""
    with ManualEngine() as engine, Scene(certificates["p256"], engine, "1.3") as scene:
        scene.cycle(parked, fin, BATCH)


@pytest.fixture(autouse=True)
def nothing_left(warm: None) -> Iterator[None]:  # noqa: ARG001 - it comes before the first look
    """Look at all that the process holds, once the server and the engine are gone, too."""
    before, counters = leaks.holdings(), engine_shim.counters()
    yield
    after = leaks.settled(before)
    check_gone()
    now = engine_shim.counters()
    assert (now.wait_fds_open, now.engines_alive) == (counters.wait_fds_open, counters.engines_alive)
    assert (now.keys_alive, now.stacks_alive) == (counters.keys_alive, counters.stacks_alive)
    assert now.jobs_abandoned == counters.jobs_abandoned
    assert not leaks.complaint(before, after)


def run_cycles(scene: Scene, moment: Callable[[Scene], None], way: Callable[[Scene], None]) -> None:
    first = scene.site.statistics()
    for _ in range(CYCLES // BATCH):
        scene.cycle(moment, way, BATCH)
    check_gone()
    now = scene.site.statistics()
    assert now.handshakes_failed - first.handshakes_failed == CYCLES
    assert now.handshakes_in_progress == now.parked_now == now.draining_now == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_leaving(
    version: str,
    moment: Callable[[Scene], None],
    way: Callable[[Scene], None],
    identity: Identity,
    clock: Clock,
) -> None:
    with ManualEngine() as engine, Scene(identity, engine, version, clock) as scene:
        run_cycles(scene, moment, way)
        assert (engine.pending, engine.begun) == (0, 0)
        if moment in (parked, begun):
            assert scene.site.statistics().ops_cancelled == CYCLES


@pytest.mark.parametrize("way", [fin, rst, silence])
@pytest.mark.parametrize("moment", REAL_MOMENTS)
@pytest.mark.parametrize("kind", REAL_ENGINES)
def test_leaving_a_real_engine(
    kind: str,
    moment: Callable[[Scene], None],
    way: Callable[[Scene], None],
    identity: Identity,
    clock: Clock,
) -> None:
    with REAL_ENGINES[kind]() as engine, Scene(identity, engine, "1.3", clock) as scene:
        run_cycles(scene, moment, way)


# Clients that finish the handshake.


@pytest.mark.parametrize("way", REAL_WAYS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", REAL_ENGINES)
def test_leaving_after_the_handshake(kind: str, version: str, way: Callable[[Storm], None], identity: Identity) -> None:
    with REAL_ENGINES[kind]() as engine, Scene(identity, engine, version) as scene:
        for _ in range(CYCLES // BATCH):
            with Storm(scene.site.address, BATCH, python_context(scene.target)) as storm:
                storm.handshake()
                way(storm)
                scene.site.until(lambda numbers: not numbers.connections_open)
        check_gone()
        assert scene.site.statistics().handshakes_completed == CYCLES


@pytest.mark.parametrize("version", VERSIONS)
def test_silence_after_the_handshake(version: str, identity: Identity, clock: Clock) -> None:
    with ThreadEngine() as engine, Scene(identity, engine, version, clock) as scene:
        with Storm(scene.site.address, BATCH, python_context(scene.target)) as storm:
            storm.handshake()
            clock.advance(HANDSHAKE_OVER, scene.site)
            storm.echo(b"the handshake's deadline does not hold any more")
            clock.advance(IDLE_OVER, scene.site)
            scene.site.until(lambda numbers: not numbers.connections_open)
        check_gone()


# The server and the engine leave.


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_leaves(version: str, moment: Callable[[Scene], None], identity: Identity) -> None:
    with ManualEngine() as engine, Scene(identity, engine, version) as scene:
        scene.base = scene.site.statistics()
        with Crowd(scene.site.address, BATCH) as scene.crowd:
            moment(scene)
            scene.site.server.stop(0)
            check_gone()
            scene.crowd.wait_closed()
        assert (engine.pending, engine.begun) == (0, 0)


@pytest.mark.parametrize("moment", [parked, begun])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_leaves(version: str, moment: Callable[[Scene], None], identity: Identity) -> None:
    """Handshakes that need it fail with an alert; the server stays up."""
    with ManualEngine() as engine, Scene(identity, engine, version) as scene:
        scene.base = scene.site.statistics()
        with Crowd(scene.site.address, BATCH) as scene.crowd:
            moment(scene)
            engine.close()
            scene.until_gone()
            for sock in scene.crowd.sockets:
                _, found, last = drain(sock).rpartition(ALERTS[version])
                assert len(last) == (found or b"\0")[-1]
        check_gone()
        scene.cycle(at_once, fin, BATCH)
        assert scene.site.statistics().handshakes_failed == 2 * BATCH
