"""Certificates made when a client asks: `python examples/certificates_on_demand.py`, then https://anything.localhost:8443.

A local authority (kept in authority.pem, for clients to trust) makes one for each name that ends in .localhost; on
threads, so that the loop serves others meanwhile.
"""

from __future__ import annotations

import datetime as dt
import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import tlsserver
from tlsserver import local_certificate
from tlsserver.protocols.echo import EchoProtocol

PEM, PKCS8, PLAIN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


class Authority:
    """Signs certificates, and its own first."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "local authority")])
        self.pem, _ = self.sign("local authority", self.key, x509.BasicConstraints(ca=True, path_length=0))

    def sign(self, name: str, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> tuple[bytes, bytes]:
        """Return certificate and key, PEM."""
        now, subject = dt.datetime.now(dt.timezone.utc), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=7))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(PEM), key.private_bytes(PEM, PKCS8, PLAIN)

    @functools.cache  # noqa: B019 - there is one authority
    def certificate(self, name: str) -> tlsserver.Certificate:
        """Make the certificate of a name, once."""
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        return tlsserver.Certificate(*self.sign(name[:64], ec.generate_private_key(ec.SECP256R1()), names))


def main(port: str = "8443", authority_file: str = "authority.pem") -> None:
    authority, pool = Authority(), ThreadPoolExecutor(2)
    Path(authority_file).write_bytes(authority.pem)

    def on_client_hello(request: tlsserver.ClientHelloRequest) -> None:
        if (request.server_name or "").endswith(".localhost"):
            pool.submit(lambda: request.complete(authority.certificate(str(request.server_name).lower())))
        else:
            request.reject("unrecognized_name")

    files = local_certificate.local_certificate()
    context = tlsserver.TLSContext(files.certificate, files.key, on_client_hello=on_client_hello)
    server = tlsserver.Server(context, EchoProtocol, port=int(port))
    print("listening on {}:{}".format(*server.listen()), flush=True)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
