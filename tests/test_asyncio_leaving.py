"""Clients that leave at every moment, tasks that are cancelled in every state, loops that are closed with all of it.

Invariant: when they are gone, nothing is left of them: no connection object, descriptor, job, op, thread. The stress
form does it thousands of times and looks at memory, too (`make stress`; tests/support/memory.py has the reason why that
needs an environment of its own).
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import click
import pytest

import engine_shim
from engine_shim import ManualEngine
from support import leaks
from support.aio import LOOPS, VERSIONS, Site, Told, new_loop, until
from support.aio_leaving import MOMENTS, WAYS, Scene
from support.leaving import check_gone, forget_others
from support.memory import TUNABLES, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

pytestmark = [pytest.mark.parametrize("loop", LOOPS)]

WARM, CYCLES = 1_000, 5_000
BYTES = 64  # a cycle, allocated
# A loop with three connections; uvloop keeps 10 of each sock_connect() when its loop is closed, without us too.
LOOP_BYTES = 128


@pytest.fixture(autouse=True)
def only_ours() -> None:
    forget_others()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("version", VERSIONS)
def test_leaving(loop: str, identity: Identity, manual: ManualEngine, version: str) -> None:
    async def main() -> None:
        async with Scene(identity, manual, version) as scene:
            for moment in MOMENTS:
                for way in WAYS:
                    for _ in range(2):
                        await moment(scene, way)
                        await scene.until_empty()

    made = new_loop(loop)
    made.run_until_complete(asyncio.wait_for(main(), 50))
    check_gone()
    made.close()
    del made
    check_gone()


@pytest.mark.usefixtures("nothing_left")
def test_every_byte_of_the_hello(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """The first bytes one by one, then in steps."""

    async def main() -> None:
        async with Scene(identity, manual, "1.3") as scene:
            for length in (*range(12), *range(12, len(scene.hello), 97), len(scene.hello) - 1):
                sock = await scene.site.raw(scene.hello[:length])
                sock.close()
            await scene.until_empty()
            assert scene.site.numbers.handshakes_failed == scene.site.numbers.connections_accepted

    made = new_loop(loop)
    made.run_until_complete(asyncio.wait_for(main(), 50))
    made.close()
    check_gone()


async def leave_open(site: Site, manual: ManualEngine, kept: list[Any]) -> None:
    """Leave a server with connections in each state."""
    await site.__aenter__()
    kept.extend([await site.raw(), await site.raw(site.hello()), await site.raw(site.hello()[:20])])
    await until(lambda: manual.pending and site.numbers.connections_open == 3)


@pytest.mark.usefixtures("nothing_left")
def test_loops_that_are_closed(loop: str, identity: Identity, manual: ManualEngine) -> None:
    site = Site(identity, Told, engine=manual)
    for _ in range(5):
        close_one(loop, site, manual)
    check_gone()


def close_one(loop: str, site: Site, manual: ManualEngine) -> None:
    kept: list[Any] = []
    made = new_loop(loop)
    made.run_until_complete(leave_open(site, manual, kept))
    made.close()
    assert not manual.pending
    for sock in kept:
        sock.close()


# Thousands of them.


@pytest.fixture
def grown(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Give what tells by how much the process has grown."""
    missing = [f"{name}={value}" for name, value in TUNABLES.items() if os.environ.get(name) != value]
    if missing:
        pytest.fail(f"memory cannot be compared: set {' '.join(missing)} before, as `make stress` does", pytrace=False)

    def tell(resident: float, allocated: float, most: float = BYTES) -> None:
        with capsys.disabled():
            click.echo(f" {resident:.1f} bytes a cycle resident, {allocated:.1f} allocated ", nl=False)
        assert allocated < most

    return tell


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_leaving_thousands_of_times(loop: str, identity: Identity, version: str, grown: Callable[..., None]) -> None:
    """Every moment and way in turn."""
    ways = [(moment, way) for moment in MOMENTS for way in WAYS]

    async def main() -> None:
        async with Scene(identity, manual, version) as scene:
            for number in range(CYCLES):
                if number == WARM:
                    before.append((leaks.holdings(), usage()))
                moment, way = ways[number % len(ways)]
                await moment(scene, way)
                await scene.until_empty()
            before.append((leaks.holdings(), usage()))

    before: list[Any] = []
    with ManualEngine() as manual:
        made = new_loop(loop)
        made.run_until_complete(main())
        check_gone()
        made.close()
    (held, first), (still, last) = before
    assert not leaks.complaint(held, still)
    grown(*((after - then) / (CYCLES - WARM) for after, then in zip(last, first, strict=True)))


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_closing_hundreds_of_loops(
    loop: str, identity: Identity, monkeypatch: pytest.MonkeyPatch, grown: Callable[..., None]
) -> None:
    monkeypatch.setattr(logging.getLogger("tlsserver.asyncio.home"), "disabled", True)  # pytest keeps what is logged
    with ManualEngine() as manual:
        site = Site(identity, Told, engine=manual)
        for number in range(600):
            if number == 100:
                held, first = leaks.holdings(), usage()
            close_one(loop, site, manual)
        check_gone()
        last = usage()
        assert not leaks.complaint(held, leaks.holdings())
        assert engine_shim.counters().jobs_started == engine_shim.counters().jobs_finished
        grown(*((after - then) / 500 for after, then in zip(last, first, strict=True)), LOOP_BYTES)
