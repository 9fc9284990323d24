"""The CPU time of uvicorn hosting a hello application, on our TLS and on the standard library's.

Three loads, each on a server of its own process, whose user and system time is read before and after:

- handshakes: ``tlsserver bench``, full ones, closed at once. ms of CPU for each.
- requests: ``h2load --h1``, 16 connections that are kept alive. Requests for each second of CPU.
- download: the same with a body of 32 MiB in pieces of 64 KiB. MB for each second of CPU.

The servers of one loop run at the same time and get each load in slices, in turn: what the machine does besides meets
them all alike. Printed are the medians of the rounds, and the median of each round's ratio to the standard library on
the same loop.

    python tests/benchmarks/uvicorn_cpu.py [--rounds 5] [--loop asyncio --loop uvloop]
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from benchmarks.latency_storm import SPAWN  # noqa: E402 - found by the line above

from support.certificates import Certificates, Identity  # noqa: E402 - the same

if TYPE_CHECKING:
    import ssl
    from multiprocessing.connection import Connection as Pipe

Send = Callable[[dict[str, Any]], Awaitable[None]]
PIECE = b"x" * 65536
PIECES = 512
HANDSHAKES, REQUESTS, DOWNLOADS = 2000, 24000, 32
SLICES = 8  # a second or less each
CONNECTIONS = 16
TICKS = os.sysconf("SC_CLK_TCK")


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
    """Say hello; at /bulk send 32 MiB."""
    if scope["type"] != "http":
        return
    del receive
    is_bulk = scope["path"] == "/bulk"
    length = len(PIECE) * PIECES if is_bulk else 5
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(PIECES if is_bulk else 0):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if is_bulk else b"hello"})


def new_loop(name: str, *, ours: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop."""
    import uvloop  # noqa: PLC0415 - the clients do not load it

    base: Callable[[], asyncio.AbstractEventLoop] = (
        uvloop.new_event_loop if name == "uvloop" else asyncio.SelectorEventLoop
    )
    if not ours:
        return base
    from tlsserver.asyncio import loop_factory  # noqa: PLC0415 - not for the standard library

    return loop_factory(base)


def make_context(whose: str, identity: Identity) -> ssl.SSLContext:
    """Make what uvicorn's ssl_context_factory returns."""
    if whose == "stdlib":
        import ssl  # noqa: PLC0415 - what is compared

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert, identity.key)
        return context
    from tlsserver.asyncio import SSLContext  # noqa: PLC0415 - not for the standard library

    offload, _, threads = whose.partition(":")
    made = SSLContext(offload=offload, offload_threads=int(threads) if threads else None)
    made.load_cert_chain(identity.cert, identity.key)
    return made


def serve(pipe: Pipe, loop: str, whose: str, identity: Identity) -> None:
    """Run uvicorn until told to stop."""
    import uvicorn  # noqa: PLC0415 - the clients do not load it

    context = make_context(whose, identity)
    config = uvicorn.Config(
        app,
        port=0,
        log_level="warning",
        access_log=False,
        backlog=4096,
        ssl_context_factory=lambda _config, _default: context,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            pipe.send(self.servers[0].sockets[0].getsockname()[1])

    server = Server(config)

    async def main() -> None:
        asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: setattr(server, "should_exit", True))
        await server.serve()

    runs = new_loop(loop, ours=whose != "stdlib")()
    runs.run_until_complete(main())
    runs.close()


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def handshakes(port: int, how_many: int) -> float:
    """Make full handshakes; return how many."""
    command = [sys.executable, "-m", "tlsserver", "bench", f"127.0.0.1:{port}", "--json"]
    options = ["--count", str(how_many), "--concurrency", "64", "--tls", "1.3"]
    done = subprocess.run([*command, *options], capture_output=True, check=True, text=True)
    return float(json.loads(done.stdout)["handshakes"])


def h2load(port: int, path: str, count: int) -> float:
    """Make requests; return how many succeeded."""
    command = [
        "h2load",
        "--h1",
        "-n",
        str(count),
        "-c",
        str(min(CONNECTIONS, count)),
        f"https://127.0.0.1:{port}{path}",
    ]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    found = re.search(r"(\d+) succeeded", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == count, done.stdout
    return count


# What is asked of a server, how often, and the name of its figure, which comes from the count and the seconds of CPU.
LOADS: tuple[tuple[Callable[[int, int], float], int, str, Callable[[float, float], float]], ...] = (
    (handshakes, HANDSHAKES, "handshake, ms", lambda count, seconds: seconds / count * 1000),
    (lambda port, count: h2load(port, "/", count), REQUESTS, "requests/s", lambda count, seconds: count / seconds),
    (
        lambda port, count: h2load(port, "/bulk", count),
        DOWNLOADS,
        "MB/s",
        lambda count, seconds: count * len(PIECE) * PIECES / 1e6 / seconds,
    ),
)


class Server:
    """One server in a process of its own."""

    def __init__(self, loop: str, whose: str, identity: Identity) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=serve, args=(theirs, loop, whose, identity))
        self._process.start()
        self._port: int = self._pipe.recv()
        self._used: dict[str, tuple[float, float]] = {}

    def load(self, share: float) -> None:
        """Put a slice of each load on it."""
        assert self._process.pid is not None
        for ask, how_many, name, _ in LOADS:
            before = cpu(self._process.pid)
            count = ask(self._port, max(int(how_many * share / SLICES), 1))
            seconds = cpu(self._process.pid) - before
            done, used = self._used.get(name, (0.0, 0.0))
            self._used[name] = done + count, used + seconds

    def figures(self) -> dict[str, float]:
        """Return what it came to."""
        return {name: figure(*self._used[name]) for _, _, name, figure in LOADS}

    def forget(self) -> None:
        """Begin anew: what happens once has happened."""
        self._used.clear()

    def stop(self) -> None:
        """End it."""
        self._pipe.send("stop")
        self._process.join()


def measure(loop: str, everybody: tuple[str, ...], identity: Identity, share: float) -> dict[str, dict[str, float]]:
    """Put all loads, or a share of them, on one server of each kind."""
    servers = {whose: Server(loop, whose, identity) for whose in everybody}
    for server in servers.values():
        server.load(share)
        server.forget()
    for _ in range(SLICES):
        for server in servers.values():
            server.load(share)
    for server in servers.values():
        server.stop()
    return {whose: server.figures() for whose, server in servers.items()}


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--rounds", default=5, show_default=True)
@click.option("--loop", "loops", multiple=True, type=click.Choice(["asyncio", "uvloop"]), default=["asyncio", "uvloop"])
@click.option("--offload", "offloads", multiple=True, default=["batch"], show_default=True)
@click.option("--key", default="rsa2048", show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of each load.")
def main(rounds: int, loops: tuple[str, ...], offloads: tuple[str, ...], key: str, share: float) -> None:
    """Measure and print."""
    seen: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        identity = Certificates(Path(folder))[key]
        for _ in range(rounds):
            for loop in loops:
                measured = measure(loop, ("stdlib", *offloads), identity, share)
                for whose, figures in measured.items():
                    seen[loop, whose].append(figures)
                    ratios = [f"{figures[name] / measured['stdlib'][name]:>8.3f}" for name in figures]
                    click.echo(f"{f'{loop}, {whose}':<20}{''.join(ratios)}", err=True)
    click.echo(f"{'loop, TLS':<20}" + "".join(f"{name:>16}{'ratio':>8}" for name in seen[loops[0], "stdlib"][0]))
    for (loop, whose), rows in seen.items():
        base = seen[loop, "stdlib"]
        cells = []
        for name in rows[0]:
            ratio = statistics.median(row[name] / other[name] for row, other in zip(rows, base, strict=True))
            cells.append(f"{statistics.median(row[name] for row in rows):>16.3f}{ratio:>8.2f}")
        click.echo(f"{f'{loop}, {whose}':<20}" + "".join(cells))


if __name__ == "__main__":
    main()
