"""A web service on the HTTP protocol: `python examples/hello_http.py cert.pem key.pem`, then curl -k it.

The handler runs on the loop's thread, so it must not block.
"""

from __future__ import annotations

import sys

import engine_shim
import tlsserver
from tlsserver.protocols.http1 import protocol_factory
from tlsserver.protocols.messages import Request, Response


def hello(request: Request) -> Response:
    """Answer with what TLS settled."""
    if request.path != "/":
        return Response.plain(404)
    tls = request.transport.get_extra_info("tls")
    park = request.transport.get_extra_info("park")
    text = f"hello over {tls.version}, {tls.cipher}; parked for {park.seconds * 1000:.1f} ms\n"
    return Response(200, (("Content-Type", "text/plain"),), text.encode())


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.LatencyEngine(0.05) as engine:  # as if the key were in a device 50 ms away
        context = tlsserver.TLSContext(certificate, engine.load_key(key), alpn=["http/1.1"])
        server = tlsserver.Server(context, protocol_factory(hello), port=int(port))
        host, listening = server.listen()
        print(f"listening on {host}:{listening}", flush=True)
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
