"""asyncio's own TLS, on its own loop: PORT CERTIFICATE KEY."""

from __future__ import annotations

import asyncio
import ssl
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def main(port: str, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    # Of a client that resets its connection, it would write a traceback.
    loop.set_exception_handler(lambda *_: None)
    server = await loop.create_server(
        Echo, "127.0.0.1", int(port), ssl=context, backlog=4096, ssl_handshake_timeout=600
    )
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
