"""What WSGI applications learn of the TLS of their connection, under the names of Apache's mod_ssl."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.wire import TLSInfo

__all__ = ["environ"]


def environ(info: TLSInfo, certificate: ClientCertificate | None) -> dict[str, str]:
    """Return the variables: https://httpd.apache.org/docs/2.4/mod/mod_ssl.html#envvars.

    Args:
        info: What the handshake settled.
        certificate: The client's, verified; None: it has sent none.
    """
    told = {
        "HTTPS": "on",
        "SSL_PROTOCOL": info.version,
        "SSL_CIPHER": info.cipher,
        "SSL_SESSION_RESUMED": "Resumed" if info.reused else "Initial",
        "SSL_TLS_SNI": info.server_name or "",
        "SSL_CLIENT_VERIFY": "NONE" if certificate is None else "SUCCESS",
    }
    return told if certificate is None else {**told, **_of_client(certificate)}


def _of_client(certificate: ClientCertificate) -> dict[str, str]:
    found = certificate.x509
    peer = certificate.peercert()
    told = {
        "SSL_CLIENT_S_DN": certificate.subject,
        "SSL_CLIENT_I_DN": found.issuer.rfc4514_string(),
        "SSL_CLIENT_M_VERSION": str(peer["version"]),
        "SSL_CLIENT_M_SERIAL": peer["serialNumber"],
        "SSL_CLIENT_V_START": peer["notBefore"],
        "SSL_CLIENT_V_END": peer["notAfter"],
        "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(certificate.der),
    }
    chain = {
        f"SSL_CLIENT_CERT_CHAIN_{at}": ssl.DER_cert_to_PEM_cert(der) for at, der in enumerate(certificate.chain[1:])
    }
    return {**told, **chain}
