"""An echo server for clients with certificates, which greets them: `python examples/mutual_tls.py CERT KEY CLIENTS-CA`.

A policy hook decides about each client; its answer may come later, from any thread, and nobody else waits meanwhile.
Try it: `openssl s_client -connect 127.0.0.1:8443 -quiet -cert client.pem -key client.key`.
"""

from __future__ import annotations

import asyncio
import sys
import threading

import tlsserver


class Greeter(asyncio.Protocol):
    """Says who the client is, then sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        client: tlsserver.ClientCertificate = transport.get_extra_info("client_certificate")
        names = ", ".join(san.value for san in client.sans)
        self.transport.write(f"hello {client.subject}{f' ({names})' if names else ''}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def look_up(request: tlsserver.ClientCertificateRequest) -> None:
    """Stands for a question to a directory, which takes its time."""
    if "guest" in request.certificate.subject:
        request.reject("certificate_unknown")
    else:
        request.accept()


def on_verified(request: tlsserver.ClientCertificateRequest) -> None:
    """Is asked on the loop's thread, so it must not block."""
    threading.Thread(target=look_up, args=(request,)).start()


def main(certificate: str, key: str, authorities: str, port: str = "8443") -> None:
    clients = tlsserver.ClientCertificates("required", ca_certs=authorities, on_verified=on_verified)
    context = tlsserver.TLSContext(certificate, key, client_certificates=clients)
    server = tlsserver.Server(context, Greeter, host="127.0.0.1", port=int(port))
    host, listening = server.listen()
    print(f"listening on {host}:{listening}", flush=True)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
