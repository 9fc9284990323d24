"""A bounded pool of OpenSSL's jobs: who gets one when they are short. Real handshakes, the loop turned by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from helpers_server import Echo, House, check_nothing_left, make_context

import engine_shim
from tlsserver import Server
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

WIDTH = 8


@pytest.fixture
def nothing_left() -> Iterator[None]:
    yield from check_nothing_left()


@pytest.fixture
def pool() -> Iterator[None]:
    """This thread has so many jobs and no more."""
    engine_shim.init_thread(WIDTH)
    yield
    engine_shim.cleanup_thread()


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


class Finishes:
    """A protocol factory that notes the order in which the server finishes the handshakes: by the clients' ports."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    def __call__(self) -> Echo:
        finishes = self

        class Noting(Echo):
            def connection_made(self, transport: object) -> None:
                finishes.ports.append(transport.get_extra_info("peername")[1])  # type: ignore[attr-defined]
                super().connection_made(transport)  # type: ignore[arg-type]

        return Noting()


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_crowd_finishes_in_the_order_of_its_arrival(identity: Identity, version: str) -> None:
    count, seconds = 400, 0.05
    finishes = Finishes()
    with (
        engine_shim.LatencyEngine(seconds) as engine,
        House(identity, engine, version=version, factory=finishes) as house,
    ):
        for _ in range(count):
            house.client()
        arrivals = [client.socket.getsockname()[1] for client in house.clients]
        began = time.monotonic()
        house.until(lambda: len(finishes.ports) == count)
        took = time.monotonic() - began
        statistics = house.statistics
    ideal = count / WIDTH * seconds
    print(f"{version}: {took:.2f} s, ideal {ideal} s, most parked {statistics.parked_max}")
    late = [finishes.ports.index(port) - at for at, port in enumerate(arrivals)]
    print("displaced", min(late), max(late))
    assert max(map(abs, late)) <= WIDTH
    assert statistics.parked_max == WIDTH
    assert (statistics.handshakes_completed, statistics.handshakes_failed) == (count, 0)
    # As fast as the pool allows: the bound of the other side leaves a slow machine twice the time.
    assert ideal <= took < 2 * ideal + 1
