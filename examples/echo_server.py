"""An echo server whose private key is performed by native threads: `python examples/echo_server.py cert.pem key.pem`.

Try it: `openssl s_client -connect 127.0.0.1:8443 -quiet`, type a line, see it again.
"""

from __future__ import annotations

import asyncio
import sys

import engine_shim
import tlsserver


class Echo(asyncio.Protocol):
    """Sends back what it gets; the interface is asyncio's, the loop is ours."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        print("hello", transport.get_extra_info("peername"), transport.get_extra_info("tls"), flush=True)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()  # a client that does not read is not read from

    def resume_writing(self) -> None:
        self.transport.resume_reading()


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.ThreadEngine(threads=2) as engine:
        context = tlsserver.TLSContext(certificate=certificate, key=engine.load_key(key))
        server = tlsserver.Server(context, Echo, host="127.0.0.1", port=int(port))
        host, listening = server.listen()
        print(f"listening on {host}:{listening}", flush=True)
        server.run()
        print(server.statistics().handshakes_parked, "handshakes were parked")


if __name__ == "__main__":
    main(*sys.argv[1:])
