"""uvicorn with our TLS: `python examples/uvicorn_app.py cert.pem key.pem clients-ca.pem`, then curl -k it.

The application learns of its connection by ASGI's extension `tls`; clients may show a certificate, which is verified.
"""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from tlsserver.integrations.uvicorn import Config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def app(scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Greet clients by the names in their certificates."""
    tls = scope["extensions"]["tls"]
    who = tls["client_cert_name"] or "whoever you are"
    body = f"hello {who}, over TLS {tls['tls_version']:#06x} with suite {tls['cipher_suite']:#06x}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """Says where it listens, because the port may be any free one."""

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)


def main(certificate: str, key: str, authorities: str, port: str = "8443") -> None:
    config = Config(  # the one line: uvicorn.Config before
        app,
        port=int(port),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=authorities,
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    Server(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
