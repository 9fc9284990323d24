"""The OCSP response that goes with the certificate (RFC 6066, section 8), from a file.

Facts
- Clients that get no response with the certificate go on without, unless the certificate says that there must be one
  (RFC 7633). Clients that get a wrong or an old one may refuse the certificate.
- Certificate and response are renewed by different programs at different times.

What it means
- A response that does not fit must neither be sent nor hold up a new certificate.

Decision
- What is no response at all is refused, as any wrong file. One that clients would not believe is not sent, and the log
  says so, once each time that it is loaded. One that becomes too old is not sent any more, from that second on (C).
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from engine_shim.server_context import set_staple
from tlsserver import certificates, ocsp
from tlsserver.errors import ConfigurationError
from tlsserver.policy.files import readable

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "expires", "trouble"]

# OpenSSL's clients end a handshake of TLS 1.2 whose CertificateStatus message has more than 16,384 bytes, four of which
# are the message's own. Responses have one or two thousand.
_LARGEST = (1 << 14) - 4

logger = logging.getLogger(__name__)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Let the response be sent, if it is one that clients would believe. The certificate has to be there.

    Raises:
        ConfigurationError: The file cannot be read, or is no OCSP response.
    """
    if settings.ocsp_staple is None:
        return
    der, found = _read(settings.ocsp_staple)
    reason = _complaint(der, found, settings, datetime.now(timezone.utc))
    if reason is not None:
        logger.warning("%s", reason)
        return
    set_staple(context, der, None if found.next_update is None else found.next_update.timestamp())


def trouble(settings: ContextSettings, now: datetime) -> str | None:
    """Say why clients get no response, although there should be one; None: they do, or there should be none.

    Raises:
        ConfigurationError: The file cannot be read, or is no OCSP response.
    """
    if settings.ocsp_staple is not None:
        return _complaint(*_read(settings.ocsp_staple), settings, now)
    chain = certificates.maybe_chain(settings.certificate)
    if chain and certificates.must_staple(chain[0]):
        return (
            f"certificate {settings.certificate} must come with an OCSP response (RFC 7633), and there is none: "
            "clients will refuse it; give --ssl-ocsp-staple"
        )
    return None


def expires(settings: ContextSettings) -> float | None:
    """Return when the response is too old, in seconds since 1970; None: there is none, or it does not say."""
    if settings.ocsp_staple is None:
        return None
    try:
        end = _read(settings.ocsp_staple)[1].next_update
    except ConfigurationError:
        return None
    return None if end is None else end.timestamp()


def _read(path: str | Path) -> tuple[bytes, ocsp.Response]:
    with readable("OCSP response", path):
        der = Path(path).read_bytes()
    try:
        return der, ocsp.read(der)
    except ValueError as error:
        message = f"{path} is no OCSP response in DER: write one with `openssl ocsp -respout`"
        raise ConfigurationError(message) from error


def _complaint(der: bytes, found: ocsp.Response, settings: ContextSettings, now: datetime) -> str | None:
    chain = certificates.maybe_chain(settings.certificate)
    reason = found.complaint(chain, now) if chain else None
    if len(der) > _LARGEST:
        reason = f"it has {len(der):,} bytes, and OpenSSL's clients take at most {_LARGEST:,} in TLS 1.2"
    if reason is None and found.status != "good":
        reason = f"it says that the certificate is {found.status}"
    return reason and f"the OCSP response {settings.ocsp_staple} is not sent: {reason}; fetch another one"
