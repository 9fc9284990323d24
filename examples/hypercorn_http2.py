"""hypercorn with our TLS, HTTP/2 and HTTP/1.1 by ALPN: `python examples/hypercorn_http2.py cert.pem key.pem`.

Try `curl -k --http2 https://127.0.0.1:8443/`. Ctrl-C or SIGTERM lets requests finish.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from tlsserver.integrations.hypercorn import Config, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def app(scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Answer with what was negotiated."""
    if scope["type"] != "http":
        return  # the lifespan is of no use here
    tls = scope["extensions"]["tls"]
    body = f"HTTP/{scope['http_version']} over TLS {tls['tls_version']:#06x}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def run(config: Config) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(app, config, shutdown_trigger=stop.wait)


def main(certificate: str, key: str, port: str = "8443") -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile, config.keyfile = certificate, key
    config.errorlog = None  # what it says at its start is below
    sockets = config.create_sockets()
    config.create_sockets = lambda: sockets  # made here, because the port may be any free one
    sockets.secure_sockets[0].listen()
    print("listening on {}:{}".format(*sockets.secure_sockets[0].getsockname()), flush=True)
    asyncio.run(run(config))


if __name__ == "__main__":
    main(*sys.argv[1:])
