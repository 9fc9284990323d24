"""How much memory does an open connection take, and a handshake that waits for its signature?

A server is started, serves a few connections so that whatever it makes once is made, and is looked at empty. Then
clients open thousands of connections and are silent; the memory that the server's processes have grown by is divided by
their number. For parked handshakes the engine's latency is so long that no signature is ever done.

Physical memory is the sum over the server's processes (/proc/PID/smaps_rollup); the kernel's socket buffers are not in
it.

    python tests/benchmarks/memory.py [--peers] [--only off,nginx] [--connections 9500] [--parked 5000] [--json]
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from benchmarks.peers import choice, processes, report, servers  # noqa: E402 - found by the line above
from benchmarks.peers.crowd import Crowd, client_context  # noqa: E402 - the same
from benchmarks.peers.running import readable_folder, running  # noqa: E402 - the same

from support.certificates import Certificates  # noqa: E402 - the same
from support.child_server import allow_many_files  # noqa: E402 - the same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity

WARM = 200  # connections before the server counts as empty: what it keeps for the next ones is then there
FOREVER = "latency:600000"  # ms: no signature is done before the server is stopped
OURS = ("off", "threads", "batch1", "auto", "off-distro", "threads-distro")
PARKED = ("parked", "parked-distro")


@dataclass(frozen=True)
class Result:
    """One server.

    Attributes:
        server: Its name.
        state: "idle" or "parked".
        connections: How many.
        empty: Its resident bytes before.
        resident: Bytes that it has grown by for each, shared pages counted for each process.
        proportional: The same with shared pages divided.
    """

    server: str
    state: str
    connections: int
    empty: int
    resident: float
    proportional: float


def measured(process: processes.Process) -> processes.Memory:
    """Its memory once it has nothing to do."""
    pids = process.pids()
    process.settled_cpu_ns(pids)
    return processes.memory(pids)


def idle(name: str, identity: Identity, tools: Path, connections: int, tls: str) -> Result:
    """Open connections and let them be."""
    context = client_context(tls)
    with running(servers.SERVERS[name], identity, tools) as process:
        with Crowd(process.address, context) as first:
            first.connect(WARM)
        before = measured(process)
        with Crowd(process.address, context) as crowd:
            crowd.connect(connections)
            grown = measured(process) - before
            alive = crowd.alive()
    if alive != connections:
        raise RuntimeError(f"{name} has closed {connections - alive} of {connections} idle connections")
    return Result(name, "idle", connections, before.resident, *(value / connections for value in grown))


def parked(name: str, identity: Identity, tools: Path, connections: int, tls: str) -> Result:
    """Begin handshakes whose signature never comes."""
    ending = name.removeprefix("parked")
    server = servers.ours(ending, ("--offload", FOREVER), speaks="echo")
    with running(server, identity, tools) as process:
        before = measured(process)
        with Crowd(process.address, client_context(tls)) as crowd:
            crowd.begin(connections)
            grown = measured(process) - before
            now = json.loads(process.ask())["parked_now"]
    if now != connections:
        raise RuntimeError(f"{now} of {connections} handshakes are parked")
    return Result(name, "parked", connections, before.resident, *(value / connections for value in grown))


def table(results: list[Result]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield from report.heading("server", "connections", "KB each, resident", "KB each, proportional", "empty server, MB")
    for one in results:
        each = (f"{one.resident / 1024:.1f}", f"{one.proportional / 1024:.1f}")
        yield report.row([one.server, f"{one.connections} {one.state}", *each, f"{one.empty / 2**20:.1f}"])


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--connections", default=9500, show_default=True, help="Idle ones; 0: none.")
@click.option("--parked", "waiting", default=5000, show_default=True, help="Handshakes that wait; 0: none.")
@click.option("--tls", default="1.3", show_default=True, type=click.Choice(["1.2", "1.3"]))
@click.option("--key", "kind", default="p256", show_default=True, help="Kind of key.")
@choice.options()
@click.option("--document", is_flag=True, help="Put the table into docs/performance.md as well.")
@click.option("--json", "as_json", is_flag=True, help="Print lines of JSON instead.")
def main(
    *,
    connections: int,
    waiting: int,
    tls: str,
    kind: str,
    only: str | None,
    peers: bool,
    tools: Path,
    document: bool,
    as_json: bool,
) -> None:
    """Measure and print."""
    allow_many_files()
    failed = False
    names = choice.chosen(only, (*OURS, *PARKED), tools, peers=peers, extra=PARKED)
    results = []
    with readable_folder() as folder:
        identity = Certificates(folder)[kind]
        for name in names:
            measure, count = (parked, waiting) if name in PARKED else (idle, connections)
            if not count:
                continue
            try:
                results.append(measure(name, identity, tools, count, tls))
            except (RuntimeError, OSError) as error:  # the others have their numbers
                click.echo(f"{name}: {error}", err=True)
                failed = True
                continue
            if as_json:
                click.echo(json.dumps(asdict(results[-1])))
    if document:
        report.put(servers.ROOT / "docs" / "performance.md", "memory", table(results))
    if not as_json:
        click.echo("\n".join(table(results)))
    sys.exit(failed)


if __name__ == "__main__":
    main()
