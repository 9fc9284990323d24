"""aiohttp with our TLS, the key as far away as you like: `python examples/aiohttp_site.py cert.pem key.pem`.

Each handshake waits 50 ms for its signature; requests on open connections are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from aiohttp import web

import engine_shim
import tlsserver
from tlsserver.integrations.aiohttp import TLSSite


async def hello(request: web.Request) -> web.Response:
    """Answer with what TLS settled."""
    assert request.transport is not None
    tls = request.transport.get_extra_info("tls")
    return web.Response(text=f"hello over {tls.version}, by {request.scheme}\n")


async def run(context: tlsserver.TLSContext, port: int) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = TLSSite(runner, "127.0.0.1", port, ssl_context=context)  # the one line: web.TCPSite before
    await site.start()
    print(f"listening on {site.name}", flush=True)
    await stop.wait()
    await runner.cleanup()


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.LatencyEngine(0.05) as engine:  # as if the key were in a device 50 ms away
        context = tlsserver.TLSContext(certificate, engine.load_key(key))
        asyncio.run(run(context, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
