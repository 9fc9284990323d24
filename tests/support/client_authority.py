"""Authorities of clients, and what they issue: good certificates, bad ones, and revocation lists."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY = dt.timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(microsecond=0)


@dataclass(frozen=True)
class Holder:
    """Who has a certificate: two PEM files, and the certificate as an object."""

    cert: Path  # with the chain up to the root, without it
    key: Path
    x509: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.x509.public_bytes(Encoding.DER)


class Authority:
    """A certificate authority for clients.

    Args:
        folder: Where its files go.
        name: Its common name, and the stem of its files.
        above: Who signs its certificate; None: it does.
    """

    def __init__(self, folder: Path, name: str, above: Authority | None = None) -> None:
        self.folder, self.name, self._above = folder, name, above
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, self._key, (now() - DAY, now() + DAY), above or self)
        signer = self._key if above is None else above._key
        self.x509 = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
            signer, hashes.SHA256()
        )
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.x509.public_bytes(Encoding.PEM)

    def _builder(
        self, name: str, key: Any, valid: tuple[dt.datetime, dt.datetime], issuer: Authority
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(common(name))
            .issuer_name(common(issuer.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
        )

    def issue(
        self,
        name: str,
        *,
        valid: tuple[dt.datetime, dt.datetime] | None = None,
        usage: x509.ObjectIdentifier = CLIENT,
        sans: Sequence[x509.GeneralName] = (),
        key: Any = None,
    ) -> Holder:
        """Make a client's certificate, valid now and for the use, unless something else is asked for."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key, valid or (now() - DAY, now() + DAY), self)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        holder = Holder(self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key", made)
        chain = b"" if self._above is None else self.pem
        holder.cert.write_bytes(made.public_bytes(Encoding.PEM) + chain)
        holder.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return holder

    def revoke(
        self, *revoked: Holder, file: str = "crl.pem", since: dt.timedelta = -DAY, until: dt.timedelta = DAY
    ) -> Path:
        """Make a list of what is revoked.

        Args:
            revoked: May be nothing.
            file: End of its name.
            since: When it becomes valid, from now.
            until: When it ends.
        """
        builder = x509.CertificateRevocationListBuilder().issuer_name(common(self.name))
        builder = builder.last_update(now() + since).next_update(now() + until)
        for holder in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(holder.x509.serial_number)
            builder = builder.add_revoked_certificate(one.revocation_date(now() - DAY).build())
        path = self.folder / f"{self.name}-{file}"
        form = Encoding.DER if file.endswith(".der") else Encoding.PEM
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(form))
        return path


def common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
