"""How long do other connections wait while clients keep shaking hands?

A closed loop of handshakes (50 at a time, RSA-4096) keeps the server busy; meanwhile another client, whose connection
was open before, sends one byte, waits until it has come back, waits a random moment and sends the next. A server that
does not echo is asked for a page of five bytes instead, over a connection that is kept alive.

The random moments keep the client from running in step with the server's loop. A round trip that takes long is one
sample only, so a server that stands still most of the time is shown better here than it is. Nothing is bound to a core:
a server with a second thread has a second core to use, if the clients leave it one.

    python tests/benchmarks/round_trip.py [--peers] [--only batch1-echo,nginx] [--rounds 3] [--seconds 5] [--json]
"""

from __future__ import annotations

import json
import random
import select
import socket
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from benchmarks.peers import choice, load, processes, report  # noqa: E402 - found by the line above
from benchmarks.peers.crowd import client_context  # noqa: E402 - the same
from benchmarks.peers.figures import figure  # noqa: E402 - the same
from benchmarks.peers.running import readable_folder, running  # noqa: E402 - the same
from benchmarks.peers.servers import ROOT, SERVERS  # noqa: E402 - the same

from support.certificates import Certificates  # noqa: E402 - the same

if TYPE_CHECKING:
    import ssl
    import subprocess
    from collections.abc import Iterator

    from typing_extensions import Self

    from support.certificates import Identity

OURS = ("off-echo", "threads-echo", "batch1-echo", "batch0-echo")
THINKING = (0.001, 0.003)  # seconds between an answer and the next question
MARGIN = 2.5  # seconds that the load runs longer than we look: it begins before, and ends after
BUSY = 20_000_000  # ns of the server's CPU time after which the load has begun
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WARM = 20  # round trips before the load begins
LEAST = 2  # samples without which nothing is told; the table has their number


@dataclass(frozen=True)
class Result:
    """One round.

    Attributes:
        server: Its name.
        p50: Half of the round trips took no longer, in milliseconds.
        p99: 99 of 100 did.
        worst: The longest.
        samples: How many there were.
        rate: Handshakes per second meanwhile.
    """

    server: str
    p50: float
    p99: float
    worst: float
    samples: int
    rate: float


class Bystander:
    """A connection that is open; a context manager.

    Args:
        address: Of the server.
        speaks: "echo" or "http".
    """

    def __init__(self, address: tuple[str, int], speaks: str) -> None:
        plain = socket.create_connection(address, processes.PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: ssl.SSLSocket = client_context().wrap_socket(plain)
        self._ask = self._echo if speaks == "echo" else self._get

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tls.close()

    def round_trip(self) -> float:
        """Ask, and return how many seconds it took to get the answer."""
        begin = time.perf_counter()
        self._ask()
        return time.perf_counter() - begin

    def _echo(self) -> None:
        self._tls.sendall(b"x")
        if self._tls.recv(16) != b"x":
            raise ConnectionError("the byte has not come back")

    def _get(self) -> None:
        self._tls.sendall(REQUEST)
        answer = b""
        while not is_complete(answer):
            more = self._tls.recv(1 << 16)
            if not more:
                raise ConnectionError(f"the server has closed after {answer!r}")
            answer += more


def is_complete(answer: bytes) -> bool:
    """Tell whether all of an HTTP answer is there; it has to tell its length."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    return len(body) >= int(fields[b"content-length"])


def one_round(name: str, identity: Identity, tools: Path, concurrency: int, seconds: float) -> Result:
    """Start a server, keep it busy, and ask it meanwhile."""
    server = SERVERS[name]
    with (
        running(server, identity, tools) as process,
        Bystander(process.address, server.speaks) as bystander,
    ):
        for _ in range(WARM):
            bystander.round_trip()
        pids = process.pids()
        before = process.settled_cpu_ns(pids)
        with load.started(process.address, "1.3", concurrency, seconds + MARGIN) as generator:
            wait_busy(pids, before, generator)
            times = ask(bystander, seconds)
            if generator.poll() is not None:
                raise RuntimeError("the load has ended before we have")
            done = load.finished(generator, "1.3")
    if done.errors or len(times) < LEAST:
        raise RuntimeError(f"{name}: {len(times)} round trips, failed handshakes: {done.errors}")
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Result(name, cuts[49], cuts[98], max(times), len(times), done.handshakes / done.seconds)


def wait_busy(pids: frozenset[int], before: int, generator: subprocess.Popen[str]) -> None:
    """Wait until the load has reached the server.

    Raises:
        RuntimeError: It never does.
    """
    deadline = time.monotonic() + processes.PATIENCE
    while sum(map(processes.cpu_ns, pids)) - before < BUSY:
        if generator.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the load does not reach the server")
        think(0.01)


def ask(bystander: Bystander, seconds: float) -> list[float]:
    """Ask again and again; returns the round trips, in milliseconds."""
    times = []
    randomness = random.Random(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(bystander.round_trip() * 1000)
        think(randomness.uniform(*THINKING))
    return times


def think(seconds: float) -> None:
    """Let time pass."""
    select.select([], [], [], seconds)


def table(results: list[Result]) -> Iterator[str]:
    """The lines of a Markdown table: medians of the rounds."""
    yield from report.heading(
        "server", "asked for", "p50 ms", "p99 ms (spread)", "longest ms", "handshakes/s", "samples"
    )
    for name in dict.fromkeys(one.server for one in results):
        rounds = [one for one in results if one.server == name]
        p50, p99, worst, samples, rate = (
            figure(getattr(one, field) for one in rounds) for field in ("p50", "p99", "worst", "samples", "rate")
        )
        told = f"**{p99.median:.2f}** ({p99.least:.2f}-{p99.most:.2f})"
        what = "a byte" if SERVERS[name].speaks == "echo" else "a page"
        numbers = (f"{p50.median:.2f}", told, f"{worst.median:.1f}", f"{rate.median:.0f}", f"{samples.median:.0f}")
        yield report.row([name, what, *numbers])


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--key", "kind", default="rsa4096", show_default=True, help="Kind of key.")
@click.option("--concurrency", default=50, show_default=True, help="Handshakes in progress.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=5.0, show_default=True, help="Of each round.")
@choice.options()
@click.option("--json", "as_json", is_flag=True, help="Print lines of JSON instead.")
@click.option("--document", is_flag=True, help="Put the table into docs/performance.md as well.")
def main(
    kind: str,
    concurrency: int,
    rounds: int,
    seconds: float,
    only: str | None,
    *,
    peers: bool,
    tools: Path,
    as_json: bool,
    document: bool,
) -> None:
    """Measure and print."""
    results = []
    names = choice.chosen(only, OURS, tools, peers=peers)
    with readable_folder() as folder:
        identity = Certificates(folder)[kind]
        for _ in range(rounds):
            for name in names:
                results.append(one_round(name, identity, tools, concurrency, seconds))
                if as_json:
                    click.echo(json.dumps(asdict(results[-1])))
    if document:
        report.put(ROOT / "docs" / "performance.md", "round trip", table(results))
    if not as_json:
        click.echo("\n".join(table(results)))


if __name__ == "__main__":
    main()
