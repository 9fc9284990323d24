"""The storm of latency_storm.py on loops of asyncio: ours beside the standard library's TLS, which signs on the loop.

Rows: the loop, whose TLS, and where it signs: an engine with 200 ms of latency (``latency:200``), or ``off``. The
standard library has no other way than the last.

    python tests/benchmarks/asyncio_storm.py [--rounds 3] [--clients 500]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from benchmarks.latency_storm import Result, make_engine, median, one_round  # noqa: E402 - as above

from support.certificates import Certificates, Identity  # noqa: E402 - the same

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

# Loop, whose TLS, offload, key.
Run = tuple[str, str, str, str]
RUNS: tuple[Run, ...] = (
    ("asyncio", "ours", "latency:200", "rsa2048"),
    ("uvloop", "ours", "latency:200", "rsa2048"),
    ("asyncio", "ours", "off", "rsa2048"),
    ("asyncio", "stdlib", "off", "rsa2048"),
    ("uvloop", "stdlib", "off", "rsa2048"),
    ("asyncio", "ours", "threads", "rsa4096"),
    ("asyncio", "stdlib", "off", "rsa4096"),
)


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment] # uvloop's are its own

    def data_received(self, data: bytes) -> None:
        """Echo."""
        self._transport.write(data)


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make a loop by its name."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    import uvloop  # noqa: PLC0415 - not for the rows of asyncio

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def make_context(whose: str, offload: str, identity: Identity) -> Any:
    """Make what ``ssl=`` gets; ours and the standard library's negotiate the same."""
    if whose == "stdlib":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert, identity.key)
        return context
    from tlsserver import TLSContext  # noqa: PLC0415 - not in the standard library's rows

    engine = make_engine(offload)
    return TLSContext(identity.cert, identity.key if engine is None else engine.load_key(identity.key))


def serve(pipe: Pipe, run: Run, identity: Identity) -> None:
    """Serve echo on a loop until told to stop."""
    name, whose, offload, _ = run
    loop = new_loop(name)
    if whose == "ours":
        from tlsserver.asyncio import patch_loop  # noqa: PLC0415 - not in the standard library's rows

        patch_loop(loop)
    context = make_context(whose, offload, identity)

    async def main() -> None:
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context, backlog=4096)
        done = asyncio.Event()
        loop.add_reader(pipe.fileno(), done.set)
        pipe.send(server.sockets[0].getsockname())
        await done.wait()
        loop.remove_reader(pipe.fileno())
        server.close()

    loop.run_until_complete(main())
    loop.close()
    pipe.send(None)  # it has counted nothing


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--clients", default=500, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice([",".join(run) for run in RUNS]), help="Rows.")
def main(clients: int, rounds: int, only: tuple[str, ...]) -> None:
    """Measure and print."""
    results: dict[Run, list[Result]] = {run: [] for run in RUNS if not only or ",".join(run) in only}
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        for _ in range(rounds):
            for run, measured in results.items():
                measured.append(one_round(serve, run, certificates[run[3]], clients=clients)[0])
    click.echo(f"{clients} handshakes at once; round trips of another connection meanwhile, in ms")
    click.echo(f"{'loop, TLS, offload, key':<40}{'total s':>9}{'p50':>9}{'p99':>9}{'worst':>9}")
    for run, measured in results.items():
        result = median(measured)
        figures = (result.total, result.p50, result.p99, result.worst)
        click.echo(f"{', '.join(run):<40}" + "".join(f"{value:>9.2f}" for value in figures))


if __name__ == "__main__":
    main()
