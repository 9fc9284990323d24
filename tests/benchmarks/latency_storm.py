"""How long do other connections wait while hundreds of handshakes are in progress?

Three processes: the server (one loop thread), the storm (500 clients that connect, then begin to shake hands at the
same moment), and a client with an open connection that sends one byte every 2 ms, by the clock and not by the answers,
and takes the time until it comes back. Its times count from when a byte was due, so a loop that stands still shows in
every byte that it kept waiting.

Printed: the time to the last finished handshake, and the round trips meanwhile; medians of alternating rounds.

    python tests/benchmarks/latency_storm.py [--rounds 3] [--clients 500]
"""

from __future__ import annotations

import json
import multiprocessing
import selectors
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from support.certificates import Certificates, Identity  # noqa: E402 - found by the line above
from support.storm import Storm  # noqa: E402 - the same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection as Pipe

    import engine_shim

SPAWN = multiprocessing.get_context("spawn")
PACE = 0.002  # seconds between two bytes of the open connection
BEFORE = 100  # bytes that go to and fro before the storm, so that nothing is met for the first time during it

# What is compared: the name of the offload, and the kind of key.
RUNS = (("latency:200", "rsa2048"), ("off", "rsa4096"), ("threads", "rsa4096"))


@dataclass(frozen=True)
class Result:
    """One round: the total in seconds, the others in milliseconds."""

    total: float
    p50: float
    p99: float
    worst: float


def make_engine(offload: str) -> engine_shim.Engine | None:
    """Make what `--offload` names."""
    import engine_shim  # noqa: PLC0415 - the clients do not load it

    kind, _, milliseconds = offload.partition(":")
    if kind == "latency":
        return engine_shim.LatencyEngine(float(milliseconds) / 1000)
    return engine_shim.ThreadEngine(threads=2) if kind == "threads" else None


def serve(pipe: Pipe, offload: str, identity: Identity) -> None:
    """Serve echo on one loop thread until told to stop."""
    from tlsserver import Server, TLSContext  # noqa: PLC0415 - the clients do not load it
    from tlsserver.protocols.echo import EchoProtocol  # noqa: PLC0415 - the same

    engine = make_engine(offload)
    key = identity.key if engine is None else engine.load_key(identity.key)
    with Server(TLSContext(identity.cert, key), EchoProtocol, port=0) as server:
        pipe.send(server.address)
        pipe.recv()
        pipe.send(server.statistics().as_dict())
    if engine is not None:
        engine.close()


def client_context() -> ssl.SSLContext:
    """Make a cheap client: it checks the handshake's signature, not the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Pinger:
    """An open connection on which a byte is due every 2 ms."""

    def __init__(self, address: tuple[str, int]) -> None:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = client_context().wrap_socket(plain)
        self._tls.setblocking(False)
        self._due: deque[float] = deque()
        self.times: list[tuple[float, float]] = []

    def run(self, pipe: Pipe) -> None:
        """Send until told to stop, then tell the times."""
        start, sent = time.perf_counter(), 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._tls, selectors.EVENT_READ)
            stopping = False
            while not stopping or self._due:
                next_due = start + sent * PACE
                if time.perf_counter() >= next_due and not stopping:
                    self._tls.send(b"x")
                    self._due.append(next_due)
                    sent += 1
                    if sent == BEFORE:
                        pipe.send("ready")
                    stopping = pipe.poll()
                elif selector.select(max(next_due - time.perf_counter(), 0) if not stopping else None):
                    self._receive()

    def _receive(self) -> None:
        try:
            data = self._tls.recv(1 << 16)
        except ssl.SSLWantReadError:
            return
        now = time.perf_counter()
        for _ in data:
            due = self._due.popleft()
            self.times.append((due, now - due))


def ping(pipe: Pipe, address: tuple[str, int]) -> None:
    """Be the process with the open connection."""
    pinger = Pinger(address)
    pinger.run(pipe)
    pipe.send(pinger.times)


def one_round(serve: Callable[..., None], *args: Any, clients: int) -> tuple[Result, Any]:
    """Start all three, let the storm loose, and gather what they measured.

    Args:
        serve: The server's process: called with a pipe, by which it tells its address, is told to stop, and tells what
            it has counted.
        args: More that it is called with.
        clients: How many come at once.

    Returns:
        What was measured, and what the server has told at its end.
    """
    to_server, servers_end = SPAWN.Pipe()
    server = SPAWN.Process(target=serve, args=(servers_end, *args))
    server.start()
    address = to_server.recv()
    to_pinger, pingers_end = SPAWN.Pipe()
    pinger = SPAWN.Process(target=ping, args=(pingers_end, address))
    with Storm(address, clients, client_context()) as storm:
        pinger.start()
        to_pinger.recv()
        begin = time.perf_counter()
        total = storm.handshake()[-1]
        end = time.perf_counter()
        to_pinger.send("stop")
        times = [seconds * 1000 for due, seconds in to_pinger.recv() if begin <= due <= end]
    to_server.send("stop")
    numbers = to_server.recv()
    pinger.join()
    server.join()
    cuts = statistics.quantiles(times, n=100)
    return Result(total, cuts[49], cuts[98], max(times)), numbers


def median(results: list[Result]) -> Result:
    """Take the median of each column."""
    return Result(*(statistics.median(column) for column in zip(*map(astuple, results), strict=True)))


def table(results: dict[tuple[str, str], list[Result]]) -> Iterator[str]:
    """Give the lines of the table."""
    names = ["total s", *(field.name for field in fields(Result)[1:])]
    yield f"{'offload, key':<24}" + "".join(f"{name:>9}" for name in names)
    for (offload, kind), rounds in results.items():
        yield f"{f'{offload}, {kind}':<24}" + "".join(f"{value:>9.2f}" for value in astuple(median(rounds)))


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--clients", default=500, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--run", "chosen", multiple=True, type=click.Choice([name for name, _ in RUNS]), help="Only this.")
@click.option("--json", "as_json", is_flag=True, help="Print every round as one line of JSON instead.")
def main(clients: int, rounds: int, chosen: tuple[str, ...], as_json: bool) -> None:
    """Measure and print."""
    results: dict[tuple[str, str], list[Result]] = {run: [] for run in RUNS if not chosen or run[0] in chosen}
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        for _ in range(rounds):
            for (offload, kind), measured in results.items():
                result, numbers = one_round(serve, offload, certificates[kind], clients=clients)
                assert numbers["handshakes_completed"] == clients + 1, numbers
                measured.append(result)
                if as_json:
                    click.echo(json.dumps({"offload": offload, "key": kind, **asdict(result)}))
    if not as_json:
        click.echo(f"{clients} handshakes at once; round trips of another connection meanwhile, in ms")
        for line in table(results):
            click.echo(line)


if __name__ == "__main__":
    main()
