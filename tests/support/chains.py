"""Certificates as wrong as a test wants them: expired, of an authority in between, without a name.

What `support.certificates` has is right, and made once; these are made for one test.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )

    def write(self, folder: Path, *chain: Issued, name: str = "served") -> tuple[Path, Path]:
        """Write certificate, chain and key; give the paths of the certificates and of the key."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.pem + b"".join(one.pem for one in chain))
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return certificate, key


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    key: Any = None,
    ca: bool = False,
    days: tuple[float, float] = (-1, 60),
    names: Sequence[str] = ("localhost", "127.0.0.1"),
    usage: x509.ObjectIdentifier | None = None,
    must_staple: bool = False,
) -> Issued:
    """Make a certificate.

    Args:
        subject: Its common name.
        issuer: Who signs it; None: it does itself.
        key: Its private key; None: a new one on P-256.
        ca: Whether it may sign others.
        days: From when until when it is valid, from now.
        names: What it is for, unless it is an authority's.
        usage: The one extended key usage, if any.
        must_staple: Whether an OCSP response has to come with it (RFC 7633).
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca and names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if must_staple:
        builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
    signer = issuer.key if issuer else key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest), key)


def respond(
    issued: Issued,
    issuer: Issued,
    *,
    by: Issued | None = None,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    days: tuple[float, float | None] = (-1, 6),
    certificates: int = 0,
) -> bytes:
    """Make an OCSP response, in DER.

    Args:
        issued: The certificate that it is about.
        issuer: Who has signed that.
        by: Who signs the response, where it is not the issuer; its certificate is in it.
        status: Of the certificate.
        days: From when until when it is valid, from now; None: it does not say.
        certificates: How often the signer's is in it, beside that.
    """
    now = dt.datetime.now(dt.timezone.utc)
    signer = by or issuer
    builder = ocsp.OCSPResponseBuilder().add_response(
        issued.certificate,
        issuer.certificate,
        hashes.SHA1(),  # noqa: S303 - what responders use to name certificates (RFC 5019)
        status,
        now + dt.timedelta(days=days[0]),
        None if days[1] is None else now + dt.timedelta(days=days[1]),
        now if status is ocsp.OCSPCertStatus.REVOKED else None,
        None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    inside = [signer.certificate] * (certificates + (by is not None))
    if inside:
        builder = builder.certificates(inside)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def refuse() -> bytes:
    """Make what a responder answers that cannot tell, in DER."""
    refused = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    return refused.public_bytes(serialization.Encoding.DER)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
