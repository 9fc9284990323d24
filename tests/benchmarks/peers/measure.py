"""The run: servers side by side, one cell after the other, rounds in alternation."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.peers import load, machine, probe
from benchmarks.peers.figures import Cell, Measurement
from benchmarks.peers.running import running
from benchmarks.peers.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.peers.processes import Process

    from support.certificates import Certificates

OVERHEAD = 0.9  # seconds that a measurement takes beside the load: the generator starts, the server comes to rest
START_OF_CLIENT = 0.4  # seconds of CPU time that the generator needs to start: not in what it tells
START = 2.0  # seconds for a server to start, to be looked at and warmed
WARM = 0.3  # seconds of load before anything is measured


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        servers: Their names.
        keys: Kinds of key.
        tls: Versions.
        concurrency: Connections in progress.
        rounds: How often each is measured in each cell.
        seconds: How long each time.
        server_core: The only core of all servers; None: any.
        client_core: The same of the load generator.
        tools: Environment of the servers from PyPI.
    """

    servers: tuple[str, ...]
    keys: tuple[str, ...]
    tls: tuple[str, ...]
    concurrency: tuple[int, ...]
    rounds: int
    seconds: float
    server_core: int | None
    client_core: int | None
    tools: Path

    def duration(self) -> float:
        """About how many seconds it takes; more where a handshake takes long."""
        cells = len(self.keys) * len(self.tls) * len(self.concurrency)
        return len(self.servers) * (len(self.keys) * START + cells * self.rounds * (self.seconds + OVERHEAD))


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        measurements: All of them.
        seen: What each server did in one handshake, by its name, kind of key and version of TLS.
    """

    measurements: list[Measurement]
    seen: dict[tuple[str, str, str], probe.Seen]


def run(plan: Plan, certificates: Certificates, tell: Callable[[Measurement], None], result: Run) -> None:
    """Run it all.

    Args:
        plan: What.
        certificates: Where the keys come from.
        tell: Called with each measurement.
        result: Where they are put, so that they are there whatever happens.

    Raises:
        RuntimeError: A server does not do what is to be compared.
    """
    for key in plan.keys:
        with ExitStack() as stack:
            started = {name: _start(stack, name, plan, certificates, key) for name in plan.servers}
            for name, process in started.items():
                for tls in plan.tls:
                    result.seen[name, key, tls] = probe.look(process.address, tls)
                    load.run(process.address, tls, 8, WARM, plan.client_core)
            for one in _measurements(plan, key, started):
                result.measurements.append(one)
                tell(one)


def _start(stack: ExitStack, name: str, plan: Plan, certificates: Certificates, key: str) -> Process:
    return stack.enter_context(running(SERVERS[name], certificates[key], plan.tools, plan.server_core))


def _measurements(plan: Plan, key: str, started: dict[str, Process]) -> Iterator[Measurement]:
    """Each round in the opposite order of the one before, so that what drifts falls on all alike."""
    for tls in plan.tls:
        for concurrency in plan.concurrency:
            for number in range(plan.rounds):
                order = list(started.items())
                for name, process in reversed(order) if number % 2 else order:
                    yield _measure(plan, Cell(key, tls, concurrency), name, process, number)


def _measure(plan: Plan, cell: Cell, name: str, process: Process, number: int) -> Measurement:
    pids = process.pids()
    before, started, busy = process.settled_cpu_ns(pids), time.monotonic(), machine.busy()
    done = load.run(process.address, cell.tls, cell.concurrency, plan.seconds, plan.client_core)
    others, elapsed = machine.busy() - busy - done.cpu, time.monotonic() - started
    used = (process.settled_cpu_ns(pids) - before) / 1e9
    if process.pids() != pids:
        raise RuntimeError(f"{name} has started or ended processes: its CPU time is not known")
    return Measurement(
        cell=cell,
        server=name,
        round=number,
        handshakes=done.handshakes,
        errors=sum(done.errors.values()),
        seconds=done.seconds,
        server_cpu=used,
        client_cpu=done.cpu,
        others=max(others - used - START_OF_CLIENT, 0.0) / elapsed,
    )
