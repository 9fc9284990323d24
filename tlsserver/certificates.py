"""Certificates, read for people and for checks: a leaf over cryptography, for every release of it from 38 on."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

__all__ = [
    "Certificate",
    "Described",
    "as_utc",
    "describe",
    "is_self_issued",
    "is_signed_by",
    "key_name",
    "maybe_chain",
    "must_staple",
    "names",
    "not_after",
    "not_before",
    "read_chain",
    "serves",
]

_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.DOTALL
)
_LABELS_BEHIND_WILDCARD = 2  # nobody may have *.com


@dataclass(frozen=True)
class Described:
    """What a certificate says.

    Attributes:
        subject: Its common name, else the whole name.
        issuer: The same of who signed it.
        names: DNS names and addresses that it is for.
        valid_from: In ISO 8601, UTC.
        valid_until: The same.
        days_left: Whole days until then; negative: it has expired.
        key: Kind and size, such as ``"RSA-2048"`` or ``"EC secp256r1"``.
        signature: How it is signed, such as ``"ecdsa-with-SHA256"``.
        sha256: Fingerprint, as browsers show it.
        self_issued: Whether subject and issuer are the same.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    valid_from: str
    valid_until: str
    days_left: int
    key: str
    signature: str
    sha256: str
    self_issued: bool


def describe(certificate: x509.Certificate, now: datetime) -> Described:
    """Say what a certificate says."""
    until = not_after(certificate)
    return Described(
        subject=_common_name(certificate.subject),
        issuer=_common_name(certificate.issuer),
        names=names(certificate),
        valid_from=not_before(certificate).isoformat(),
        valid_until=until.isoformat(),
        days_left=(until - now).days,
        key=key_name(certificate),
        signature=_signature(certificate),
        sha256=hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest().hex(":").upper(),
        self_issued=is_self_issued(certificate),
    )


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM file in their order; what else is in it is passed over.

    Raises:
        ValueError: One of them cannot be read.
    """
    return [x509.load_pem_x509_certificate(found.group()) for found in _PEM.finditer(pem)]


def maybe_chain(file: str | Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file.

    None, where it cannot be read: whoever loads it tells why, and OpenSSL is less strict than cryptography.
    """
    try:
        return read_chain(Path(file).read_bytes())
    except (OSError, ValueError):
        return []


def as_utc(holder: Any, name: str) -> datetime | None:  # noqa: ANN401 - certificates and OCSP responses
    """Return a time of a certificate or an OCSP response with its time zone, or None where it has none."""
    # cryptography has NAME_utc since 42 and 43, and from then on warns of the other.
    if hasattr(holder, f"{name}_utc"):
        aware: datetime | None = getattr(holder, f"{name}_utc")
        return aware
    naive: datetime | None = getattr(holder, name)
    return None if naive is None else naive.replace(tzinfo=timezone.utc)


def not_before(certificate: x509.Certificate) -> datetime:
    """Return from when on it is valid."""
    return as_utc(certificate, "not_valid_before") or datetime.min.replace(tzinfo=timezone.utc)


def not_after(certificate: x509.Certificate) -> datetime:
    """Return until when it is valid."""
    return as_utc(certificate, "not_valid_after") or datetime.max.replace(tzinfo=timezone.utc)


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and the addresses that it is for (RFC 9525: a common name is none)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    dns = extension.value.get_values_for_type(x509.DNSName)
    return (*dns, *map(str, extension.value.get_values_for_type(x509.IPAddress)))


def serves(certificate: x509.Certificate, name: str) -> bool:
    """Tell whether a certificate is for a host's name or address (RFC 9525, section 6)."""
    try:
        wanted = str(ipaddress.ip_address(name))
    except ValueError:
        wanted = name.rstrip(".").lower()
    return any(_matches(one.lower(), wanted) for one in names(certificate))


def _matches(pattern: str, wanted: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == wanted
    rest = pattern[2:]
    return rest.count(".") >= _LABELS_BEHIND_WILDCARD - 1 and wanted.partition(".")[2] == rest


def must_staple(certificate: x509.Certificate) -> bool:
    """Tell whether an OCSP response has to come with it (RFC 7633)."""
    try:
        features = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return x509.TLSFeatureType.status_request in features


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Tell whether it names itself as its issuer: a chain ends there."""
    return certificate.subject == certificate.issuer


def is_signed_by(signed: Any, algorithm: Any, signature_hash: Any, issuer: x509.Certificate) -> bool | None:  # noqa: ANN401 - certificates and OCSP responses
    """Tell whether a signature is the issuer's; None: this cannot be told here.

    Args:
        signed: The bytes that were signed, and the signature.
        algorithm: Its object identifier.
        signature_hash: The digest, or None where the kind of key has its own.
        issuer: Whose key it should be.
    """
    data, signature = signed
    try:
        key: Any = issuer.public_key()
        if isinstance(key, rsa.RSAPublicKey) and algorithm != SignatureAlgorithmOID.RSASSA_PSS:
            key.verify(signature, data, padding.PKCS1v15(), signature_hash)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(signature_hash))
        elif isinstance(key, rsa.RSAPublicKey) or not hasattr(key, "verify"):
            return None
        else:
            key.verify(signature, data)
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return None
    return True


def key_name(certificate: x509.Certificate) -> str:
    """Return kind and size of the key."""
    try:
        key: Any = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def _signature(certificate: x509.Certificate) -> str:
    identifier = certificate.signature_algorithm_oid
    name: str = getattr(identifier, "_name", "Unknown OID")
    return identifier.dotted_string if name == "Unknown OID" else name


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else (name.rfc4514_string() or "(empty)")
