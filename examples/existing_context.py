"""A pyOpenSSL Context of your own, handed over: the keys in all its certificate slots go to an engine.

`python examples/existing_context.py cert.pem key.pem [port]`
"""

from __future__ import annotations

import sys

from OpenSSL import SSL

import engine_shim
import tlsserver
from tlsserver.protocols.echo import EchoProtocol


def my_context(certificate: str, key: str) -> SSL.Context:
    """Build it as ever. Python callbacks (SNI, ALPN, verify ...) are refused: they would run on a job's stack."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate_chain_file(certificate)
    context.use_privatekey_file(key)
    return context


def main(certificate: str, key: str, port: str = "8443") -> None:
    with engine_shim.ThreadEngine() as engine:
        context = tlsserver.TLSContext.from_pyopenssl(my_context(certificate, key), engine=engine)
        server = tlsserver.Server(context, EchoProtocol, port=int(port))
        host, listening = server.listen()
        print(f"listening on {host}:{listening}", flush=True)
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
