"""Many handshakes at once against functions that take their time, and a client who is connected meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING

import pytest

from support.clients import Target, python_context
from support.functions import Function, LaterFunction
from support.rough import Bystander
from support.running import Running, check_jobs
from support.storm import Storm
from tlsserver import TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.signers.callable import CallableSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_shim import SignRequest
    from support.certificates import Certificates, Identity

CLIENTS = 200
LATENCY = 0.05
THREADS = 50
SLACK = 1.0  # seconds, for the handshakes themselves: both ends, and the signatures, are in this process
PING = 0.25  # a ping takes a millisecond or two; what must not be seen is LATENCY, times the rounds


def wait(_: SignRequest) -> None:
    threading.Event().wait(LATENCY)


async def wait_later() -> None:
    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=LATENCY)


SIGNERS: dict[str, tuple[Callable[[Identity], CallableSigner], int]] = {
    "plain": (lambda identity: CallableSigner(Function(identity, wait), threads=THREADS), THREADS),
    "coroutine": (lambda identity: CallableSigner(LaterFunction(identity, lambda _: wait_later())), CLIENTS),
}


@pytest.fixture(params=SIGNERS)
def signer_and_depth(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[tuple[CallableSigner, int]]:
    make, depth = SIGNERS[request.param]
    with make(certificates["p256"]) as signer:
        yield signer, depth
        assert signer.close()


@pytest.mark.serial
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_slow_signer_keeps_nobody_else_waiting(
    signer_and_depth: tuple[CallableSigner, int], version: str, certificates: Certificates
) -> None:
    signer, depth = signer_and_depth
    identity = certificates["p256"]
    context = TLSContext(identity.cert, signer.load_key(identity.cert))
    ideal = LATENCY * -(-CLIENTS // depth)
    with Running(context, EchoProtocol, max_handshakes=CLIENTS) as site:
        target = Target(site.port, identity, version)
        bystander = Bystander(target)
        storm = Storm(site.address, CLIENTS, python_context(target))
        with storm, concurrent.futures.ThreadPoolExecutor(1) as executor:
            shaking = executor.submit(storm.handshake)
            pings = []
            while not shaking.done():
                begun = time.perf_counter()
                bystander.ping()
                pings.append(time.perf_counter() - begun)
            times = shaking.result()
        bystander.close()
        numbers = site.statistics()
    assert len(times) == CLIENTS
    assert times[-1] < ideal + SLACK
    assert sorted(pings)[len(pings) // 2] < PING / 5
    assert max(pings) < PING
    (one,) = numbers.signers
    assert (one.performed, one.failed, one.retries) == (CLIENTS + 1, 0, 0)
    check_jobs()
