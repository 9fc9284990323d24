"""Certificates for the tests: one authority, and one leaf for each kind of key, made when first asked for.

All are for localhost, 127.0.0.1 and ::1. Works with every release of cryptography from 38 on.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# cryptography cannot make a key of the type RSA-PSS (RFC 4055, id-RSASSA-PSS): the openssl command does.
RSA_PSS = "rsa-pss"

GENERATORS: dict[str, Callable[[], Any]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}

KINDS = (*GENERATORS, RSA_PSS)

# Where cryptography has them, OpenSSL does too.
ML_DSA: dict[str, Callable[[], Any]] = {}
try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:
    pass
else:
    ML_DSA = {f"ml-dsa-{size}": getattr(mldsa, f"MLDSA{size}PrivateKey").generate for size in (44, 65, 87)}

SUBJECT_ALT_NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
)
ALGORITHM = serialization.BestAvailableEncryption
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key, as files.

    Attributes:
        kind: One of ``KINDS``, or "ca".
        cert: PEM file of the certificate.
        key: PEM file of the private key (PKCS#8, not encrypted).
        ca: PEM file of the authority's certificate: what clients trust.
    """

    kind: str
    cert: Path
    key: Path
    ca: Path

    def encrypted_key(self, password: bytes) -> Path:
        """Give the private key once more, encrypted, in a file beside the other."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        path = self.key.with_suffix(".encrypted.pem")
        path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, ALGORITHM(password)))
        return path


class Certificates:
    """The authority and the leaves, kept in one folder for the whole session.

    Args:
        folder: Empty, and ours.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Identity] = {}
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca_name = _name("tlsserver tests CA")
        self.ca = Identity("ca", folder / "ca.pem", folder / "ca.key", folder / "ca.pem")
        builder = _builder(self._ca_name, self._ca_name, self._ca_key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._write("ca", builder.sign(self._ca_key, hashes.SHA256()), self._ca_key)

    def __getitem__(self, kind: str) -> Identity:
        """Give the leaf of a kind of key; made once."""
        if kind not in self._made:
            self._made[kind] = self._make_with_openssl(kind) if kind == RSA_PSS else self.issue(kind, kind)
        return self._made[kind]

    def issue(self, file: str, kind: str) -> Identity:
        """Make another leaf, whose key no other certificate has.

        Args:
            file: Stem of the names of its files.
            kind: Of its key.
        """
        key = (GENERATORS | ML_DSA)[kind]()
        certificate = self._leaf(_builder(_name("localhost"), self._ca_name, key.public_key()))
        self._write(file, certificate, key)
        return self._identity(file, kind)

    def for_names(self, file: str, kind: str, *names: str, key: Any = None) -> Identity:
        """Make a leaf for other host names.

        Args:
            file: Stem of the names of its files.
            kind: Of its key.
            names: Host names.
            key: Its private key; None: a new one.
        """
        key = key or (GENERATORS | ML_DSA)[kind]()
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = _builder(_name(names[0]), self._ca_name, key.public_key())
        self._write(file, builder.add_extension(alternatives, critical=False).sign(self._ca_key, hashes.SHA256()), key)
        return self._identity(file, kind)

    def _leaf(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            builder.add_extension(SUBJECT_ALT_NAMES, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._ca_key, hashes.SHA256())
        )

    def _make_with_openssl(self, kind: str) -> Identity:
        identity = self._identity(kind, kind)
        request, extensions = self._folder / "request.pem", self._folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=critical,CA:FALSE\n")
        _openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", identity.key)
        _openssl("req", "-new", "-key", identity.key, "-subj", "/CN=localhost", "-out", request)
        issuer = ("-CA", self.ca.cert, "-CAkey", self.ca.key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *issuer, "-days", "2", "-extfile", extensions, "-out", identity.cert)
        return identity

    def _identity(self, file: str, kind: str) -> Identity:
        return Identity(kind, self._folder / f"{file}.pem", self._folder / f"{file}.key", self.ca.cert)

    def _write(self, file: str, certificate: x509.Certificate, key: Any) -> None:
        (self._folder / f"{file}.pem").write_bytes(certificate.public_bytes(PEM))
        plain = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self._folder / f"{file}.key").write_bytes(plain)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
    )


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
