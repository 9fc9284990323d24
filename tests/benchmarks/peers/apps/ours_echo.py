"""Ours with the echo protocol; each line on standard input is answered with the server's numbers, as JSON."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import click

from tlsserver import Server, ServerConfig, TLSContext
from tlsserver.cli.offload import EngineSettings, load_key, open_engine, resolve
from tlsserver.protocols.echo import EchoProtocol


def answer(server: Server) -> None:
    """Tell the numbers when asked."""
    for _ in sys.stdin:
        click.echo(json.dumps(server.statistics().as_dict()))


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--backlog", type=int, default=1024)
@click.option("--ssl-certfile", type=Path, required=True)
@click.option("--ssl-keyfile", required=True)
@click.option("--offload", default="off")
@click.option("--offload-threads", type=int)
def main(
    *, port: int, backlog: int, ssl_certfile: Path, ssl_keyfile: str, offload: str, offload_threads: int | None
) -> None:
    """Serve until SIGTERM."""
    settings = EngineSettings(threads=offload_threads)
    offload, settings, _ = resolve(offload, settings, ssl_keyfile, None)
    engine = open_engine(offload, settings)
    key = ssl_keyfile if engine is None else load_key(engine, offload, ssl_keyfile, None, ssl_certfile)
    context = TLSContext(ssl_certfile, key)
    limits = ServerConfig(max_handshakes=10_000, timeout_handshake=600.0, timeout_graceful_shutdown=1.0)
    server = Server(context, EchoProtocol, config=replace(limits, port=port, backlog=backlog))
    server.listen()
    threading.Thread(target=answer, args=(server,), daemon=True).start()
    server.run()
    if engine is not None:
        engine.close()


main()
