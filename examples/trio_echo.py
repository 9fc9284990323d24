"""A trio server whose private key is performed by native threads: `python examples/trio_echo.py cert.pem key.pem`.

Try it: `openssl s_client -connect 127.0.0.1:8443 -quiet`, type a line, see it again.
"""

from __future__ import annotations

import signal
import sys
from functools import partial

import trio

import engine_shim
import tlsserver
import tlsserver.trio


async def echo(stream: tlsserver.trio.TLSStream) -> None:
    print("hello", stream.socket.getpeername(), stream.tls, flush=True)
    while data := await stream.receive_some():
        await stream.send_all(data)


async def serve(context: tlsserver.TLSContext, port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            serving = partial(tlsserver.trio.serve_tls, echo, port, context, host="127.0.0.1")
            (listener,) = await nursery.start(serving)
            host, listening = listener.transport_listener.socket.getsockname()
            print(f"listening on {host}:{listening}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()  # handshakes that are parked end as well


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.ThreadEngine(threads=2) as engine:
        context = tlsserver.TLSContext(certificate=certificate, key=engine.load_key(key))
        trio.run(serve, context, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
