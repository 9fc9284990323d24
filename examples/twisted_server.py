"""Twisted with a slow key: `python examples/twisted_server.py cert.pem key.pem`, then `curl -k https://localhost:8443/`.

A site of twisted.web and the same again behind an endpoint; both negotiate HTTP/2 where Twisted has it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.web import resource, server

import engine_shim
import tlsserver
from tlsserver.integrations.twisted import ServerOptions


class Hello(resource.Resource):
    isLeaf = True  # noqa: N815 - Twisted's name

    def render_GET(self, request: server.Request) -> bytes:  # noqa: N802 - Twisted's name
        return b"hello over " + request.clientproto + b"\n"


def main(certificate: str, key: str, port: str = "8443", second: str = "8444") -> None:
    twisted: Any = reactor
    with engine_shim.LatencyEngine(0.05) as engine:  # as if the key were in a device 50 ms away
        options = ServerOptions(tlsserver.TLSContext(certificate, engine.load_key(key)))
        listening = twisted.listenSSL(int(port), server.Site(Hello()), options, interface="127.0.0.1")
        print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
        endpoint = endpoints.SSL4ServerEndpoint(twisted, int(second), options, interface="127.0.0.1")
        endpoint.listen(server.Site(Hello()))
        twisted.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
