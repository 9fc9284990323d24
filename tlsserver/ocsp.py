"""OCSP responses (RFC 6960), read for people and for checks: a leaf over cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlsserver.certificates import as_utc, is_signed_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["Response", "read"]


@dataclass(frozen=True)
class Response:
    """What an OCSP response says.

    Attributes:
        status: ``"good"``, ``"revoked"`` or ``"unknown"``; where the responder has refused, what it said instead.
        successful: Whether it is an answer at all.
        this_update: When that was known to be so; None: it was refused.
        next_update: Until when it may be believed; None: for as long as the reader thinks.
    """

    status: str
    successful: bool
    this_update: datetime | None
    next_update: datetime | None
    parsed: Any

    def is_over(self, now: datetime) -> bool:
        """Tell whether there should be a newer one by now."""
        return self.next_update is not None and self.next_update <= now

    def complaint(self, chain: Sequence[x509.Certificate], now: datetime) -> str | None:
        """Say in a few words why clients would not believe it for a chain's first certificate; None: they would."""
        if not self.successful:
            return f"the responder has refused: {self.status}"
        if not self.is_about(chain[0]):
            return "it is about another certificate"
        if self.is_from(chain) is False:
            return "its signature is not that of the certificate's issuer"
        if self.this_update is not None and self.this_update > now:
            return f"it is valid from {self.this_update:%Y-%m-%d %H:%M} UTC on"
        if self.is_over(now):
            return f"it has expired, {self.next_update:%Y-%m-%d %H:%M} UTC"
        return None

    def is_about(self, certificate: x509.Certificate) -> bool:
        """Tell whether it is about this certificate."""
        return bool(self.parsed.serial_number == certificate.serial_number)

    def is_from(self, chain: Sequence[x509.Certificate]) -> bool | None:
        """Tell whether the issuer of a chain's first certificate, or a responder that it names, has signed it.

        Returns:
            None: this cannot be told, for the issuer is not in the chain, or its kind of key is not known.
        """
        issuers = [one for one in chain if one.subject == chain[0].issuer]
        if not issuers or not self._names(issuers[0]):
            return False if issuers else None
        own = self.parsed
        signers = [issuers[0], *(one for one in own.certificates if _is_delegate(one, issuers[0]))]
        digest = _digest(own)
        found = [
            is_signed_by((own.tbs_response_bytes, own.signature), own.signature_algorithm_oid, digest, signer)
            for signer in signers
        ]
        return True if True in found else (None if None in found else False)

    def _names(self, issuer: x509.Certificate) -> bool:
        digest = hashes.Hash(self.parsed.hash_algorithm)
        digest.update(issuer.subject.public_bytes())
        return bool(digest.finalize() == self.parsed.issuer_name_hash)


def read(der: bytes) -> Response:
    """Read an OCSP response.

    Raises:
        ValueError: It is none.
    """
    parsed = ocsp.load_der_ocsp_response(der)
    if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return Response(parsed.response_status.name.lower(), False, None, None, parsed)
    status = parsed.certificate_status.name.lower()
    return Response(status, True, as_utc(parsed, "this_update"), as_utc(parsed, "next_update"), parsed)


def _digest(signed: Any) -> Any:  # noqa: ANN401 - a response or a certificate
    try:
        return signed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _is_delegate(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the issuer has named it as a responder (RFC 6960, section 4.2.2.2)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    signed = (certificate.tbs_certificate_bytes, certificate.signature)
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage and bool(
        is_signed_by(signed, certificate.signature_algorithm_oid, _digest(certificate), issuer)
    )
