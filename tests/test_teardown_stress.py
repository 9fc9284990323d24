"""Thousands of clients that leave before, while and after their handshake is parked.

Invariant: that of test_teardown.py, and between cycle 1,000 and 5,000 the memory of the process does not grow.

`make stress` runs it; `support.memory` says why it needs an environment of its own.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import click
import pytest

from engine_shim import ManualEngine, ThreadEngine
from support import leaks
from support.clients import python_context
from support.leaving import (
    MOMENTS,
    REAL_ENGINES,
    REAL_MOMENTS,
    REAL_WAYS,
    WAYS,
    Scene,
    check_gone,
    fin,
    forget_others,
    rst,
    silence,
)
from support.memory import TUNABLES, Usage, usage
from support.running import Clock
from support.storm import Storm

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates, Identity

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120), pytest.mark.usefixtures("exercised")]

VERSIONS = ("1.2", "1.3")

BATCH = 50  # clients at once
WARM, CYCLES = 1_000, 5_000
BYTES, BYTES_EXACT = 64, 16  # a cycle: resident, and what malloc has handed out


@pytest.fixture(autouse=True)
def only_ours() -> None:
    forget_others()


@pytest.fixture(scope="module")
def exercised(certificates: Certificates) -> None:
    """Do everything a few times: memory may grow until everything has been used once, and not after."""
    missing = [f"{name}={value}" for name, value in TUNABLES.items() if os.environ.get(name) != value]
    if missing:
        pytest.fail(f"memory cannot be compared: set {' '.join(missing)} before, as `make stress` does", pytrace=False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        for version, moment, way in itertools.product(VERSIONS, MOMENTS, WAYS):
            with ManualEngine() as engine, Scene(certificates["p256"], engine, version, clock) as scene:
                scene.cycle(moment, way, BATCH)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], None]], None]:
    """Give what runs the cycles, compares, and tells by how much the process has grown."""

    def run(cycle: Callable[[], None]) -> None:
        grown = growth(cycle)
        with capsys.disabled():
            click.echo(f" {grown.resident:.1f} bytes a cycle resident, {grown.allocated:.1f} allocated ", nl=False)
        assert grown.resident < BYTES
        assert grown.allocated < BYTES_EXACT

    return run


def growth(cycle: Callable[[], None]) -> Usage:
    """Compare what the process holds after many cycles with what it held after some; bytes a cycle."""
    for _ in range(WARM // BATCH):
        cycle()
    check_gone()
    held, first = leaks.holdings(), usage()
    for _ in range((CYCLES - WARM) // BATCH):
        cycle()
    check_gone()
    grown = [(after - before) / (CYCLES - WARM) for after, before in zip(usage(), first, strict=True)]
    assert not leaks.complaint(held, leaks.settled(held))
    return Usage(*grown)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_leaving(
    version: str,
    moment: Callable[[Scene], None],
    way: Callable[[Scene], None],
    *,
    identity: Identity,
    clock: Clock,
    run: Callable[[Callable[[], None]], None],
) -> None:
    with ManualEngine() as engine, Scene(identity, engine, version, clock) as scene:
        run(lambda: scene.cycle(moment, way, BATCH))
        assert scene.site.statistics().handshakes_failed == CYCLES
        assert (engine.pending, engine.begun) == (0, 0)


@pytest.mark.parametrize("way", [fin, rst, silence])
@pytest.mark.parametrize("moment", REAL_MOMENTS)
@pytest.mark.parametrize("kind", REAL_ENGINES)
def test_leaving_a_real_engine(
    kind: str,
    moment: Callable[[Scene], None],
    way: Callable[[Scene], None],
    *,
    identity: Identity,
    clock: Clock,
    run: Callable[[Callable[[], None]], None],
) -> None:
    with REAL_ENGINES[kind]() as engine, Scene(identity, engine, "1.3", clock) as scene:
        scene.fill_jobs(BATCH)
        run(lambda: scene.cycle(moment, way, BATCH))
        assert scene.site.statistics().handshakes_failed == CYCLES + BATCH


@pytest.mark.parametrize("way", REAL_WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_leaving_after_the_handshake(
    version: str, way: Callable[[Storm], None], identity: Identity, run: Callable[[Callable[[], None]], None]
) -> None:
    """The clients live in this process, too: what they leave behind would be seen as well."""
    with ThreadEngine() as engine, Scene(identity, engine, version) as scene:
        context = python_context(scene.target)

        def cycle() -> None:
            with Storm(scene.site.address, BATCH, context) as storm:
                storm.handshake()
                way(storm)
                scene.site.until(lambda numbers: not numbers.connections_open)

        scene.fill_jobs(BATCH)
        run(cycle)
        assert scene.site.statistics().handshakes_completed == CYCLES
