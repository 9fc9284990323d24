"""One offloaded handshake, as a program of its own: what an installed wheel has to be able to do.

It prints one line of JSON. It runs in virtual environments without any test tool, on every supported cryptography.
"""

from __future__ import annotations

import datetime as dt
import json
import select
import socket
import ssl
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

import engine_shim

SECONDS = 10  # far more than a handshake takes: only a hang gets there


def make_key_and_certificate() -> tuple[bytes, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begin = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - taken for UTC
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, dt.datetime(2099, 1, 1))  # noqa: DTZ001
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form), builder.sign(key, hashes.SHA256())


def use_certificate(context: SSL.Context, certificate: x509.Certificate) -> None:
    """Pass the certificate by file: what pyOpenSSL takes as an object changed over its releases."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.use_certificate_file(file.name)


def client(end: socket.socket, received: list[bytes]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(end) as tls:
        received.append(tls.recv(100))


def wait(connection: engine_shim.AsyncSSL, status: engine_shim.Status, end: socket.socket) -> None:
    readers = connection.wait_fds() if status == engine_shim.Status.WANT_ASYNC else (end.fileno(),)
    if not select.select(readers, [], [], SECONDS)[0]:
        raise TimeoutError(f"nothing came of {status!r}")


def serve(connection: engine_shim.AsyncSSL, end: socket.socket) -> int:
    """Drive the handshake and send a greeting; gives how often it was parked."""
    parked = 0
    while (status := connection.handshake()) != engine_shim.Status.DONE:
        if status not in {engine_shim.Status.WANT_ASYNC, engine_shim.Status.WANT_READ}:
            raise RuntimeError(f"{status!r}: {connection.errors()}")
        parked += status == engine_shim.Status.WANT_ASYNC
        wait(connection, status, end)
    connection.write(b"hello")
    connection.shutdown()
    return parked


def main() -> None:
    linkage = engine_shim.attach()
    pem, certificate = make_key_and_certificate()
    near, far = socket.socketpair()
    near.setblocking(False)
    received: list[bytes] = []
    thread = threading.Thread(target=client, args=(far, received))
    with near, engine_shim.ThreadEngine(threads=1) as engine:
        context = SSL.Context(SSL.TLS_METHOD)
        use_certificate(context, certificate)
        engine.load_key(pem).use(context)
        plain = SSL.Connection(context, near)
        plain.set_accept_state()
        connection = engine_shim.AsyncSSL(plain)
        thread.start()
        parked = serve(connection, near)
        thread.join(SECONDS)
        connection.close()
    answer = {"linkage": linkage.name, "openssl": linkage.openssl_version, "parked": parked, "path": linkage.path}
    print(json.dumps({**answer, "received": received[0].decode()}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
