"""A WSGI application under cheroot: `python examples/cheroot_server.py cert.pem key.pem`, then `curl -k` it.

Handshakes wait in cheroot's workers; the thread that accepts never does.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from cheroot import wsgi

import engine_shim
import tlsserver
from tlsserver.integrations.cheroot import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = f"hello over {environ['SSL_PROTOCOL']}, {environ['SSL_CIPHER']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stop(*_: object) -> None:
    raise SystemExit


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.LatencyEngine(0.05) as engine:  # as if the key were in a device 50 ms away
        server = wsgi.Server(("127.0.0.1", int(port)), application)
        server.ssl_adapter = Adapter(tlsserver.TLSContext(certificate, engine.load_key(key)))
        signal.signal(signal.SIGTERM, stop)
        server.prepare()
        print(f"listening on 127.0.0.1:{server.bind_addr[1]}", flush=True)
        try:
            server.serve()
        except (KeyboardInterrupt, SystemExit):
            server.stop()
            server.ssl_adapter.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
