"""Several processes that share a load."""

from __future__ import annotations

from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import pytest
from helpers_bench import target

from support import leaks
from support.running import PATIENCE, Running
from tlsserver import TLSContext
from tlsserver.bench import Crew, Settings
from tlsserver.bench.crew import divide
from tlsserver.errors import ConfigurationError
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity
    from tlsserver.bench import Tally


@pytest.fixture
def server(identity: Identity) -> Iterator[Running]:
    with Running(TLSContext(identity.cert, identity.key), EchoProtocol) as running:
        yield running


@pytest.mark.parametrize(
    ("settings", "processes", "concurrency", "counts"),
    [
        ({"concurrency": 7, "count": 100}, 3, [3, 2, 2], [34, 33, 33]),
        ({"concurrency": 2}, 2, [1, 1], [None, None]),
        ({"concurrency": 9, "count": 4}, 4, [3, 2, 2, 2], [1, 1, 1, 1]),
    ],
)
def test_dividing(settings: dict[str, Any], processes: int, concurrency: list[int], counts: list[int | None]) -> None:
    parts = divide(Settings(tls="1.2", **settings), processes)
    assert [part.concurrency for part in parts] == concurrency
    assert [part.count for part in parts] == counts
    assert {part.tls for part in parts} == {"1.2"}


@pytest.mark.parametrize("settings", [{"concurrency": 2}, {"concurrency": 64, "count": 2}])
def test_a_process_without_work_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="3 processes cannot share 2 connections: give --processes 2 or fewer"):
        divide(Settings(**settings), 3)  # type: ignore[arg-type]


@pytest.mark.slow
def test_together(server: Running) -> None:
    resource_tracker.ensure_running()  # the standard library's, for good
    before = leaks.holdings()
    watched: list[int] = []
    settings = Settings(count=25, concurrency=4, duration=PATIENCE)
    tally = Crew(settings, target(server.port), 2, lambda tally: watched.append(tally.done)).run()
    assert (tally.done, len(tally.handshakes), dict(tally.errors)) == (25, 25, {})
    assert tally.cpu > 0
    assert watched[-1] == 25
    assert server.until(lambda numbers: numbers.connections_open == 0).handshakes_completed == 25
    assert not leaks.complaint(before, leaks.settled(before))


@pytest.mark.slow
def test_stopping(server: Running) -> None:
    def watch(tally: Tally) -> None:
        if tally.done:
            crew.stop()

    crew = Crew(Settings(concurrency=2, duration=PATIENCE), target(server.port), 2, watch)
    tally = crew.run()
    assert tally.done == len(tally.handshakes) > 0
    assert tally.seconds < PATIENCE
