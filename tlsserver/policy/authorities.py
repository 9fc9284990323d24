"""Certificates of authorities that are given as data, and not as files."""

from __future__ import annotations

import base64
import re

from tlsserver.errors import ConfigurationError

__all__ = ["read_authorities", "read_crls", "refuse_trust_settings", "split_der", "without_crls"]

_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
_CRL = re.compile(rb"-----BEGIN X509 CRL-----(.+?)-----END X509 CRL-----", re.DOTALL)
_SEQUENCE = 0x30
_LONG = 0x80  # the length has bytes of its own (X.690, 8.1.3.5)
_HEAD = 2


def read_authorities(data: str | bytes, *, needed: bool = True) -> list[bytes]:
    """Take certificates apart, as `ssl.SSLContext.load_verify_locations` does with ``cadata``.

    Args:
        data: PEM, as text or bytes; or, as bytes, DER, one behind the other.
        needed: Whether it is an error if there is none.

    Returns:
        Each in DER, which nobody has looked into yet.

    Raises:
        ConfigurationError: One is needed and there is none, or one has trust settings.
    """
    raw = data.encode("ascii", "replace") if isinstance(data, str) else bytes(data)
    refuse_trust_settings(raw)
    is_pem = b"-----BEGIN" in raw
    found = [_decoded(match[1]) for match in _PEM.finditer(raw)] if is_pem else split_der(raw)
    if needed and not found:
        raise ConfigurationError("no certificate of an authority in what was given: give PEM, or DER as bytes")
    return found


def refuse_trust_settings(raw: bytes) -> None:
    """Refuse certificates that say what they must not be trusted for (``openssl x509 -trustout``).

    Read as certificates alone they would be trusted for all purposes.

    Raises:
        ConfigurationError: There is one.
    """
    if b"-----BEGIN TRUSTED CERTIFICATE-----" in raw:
        message = "a certificate of an authority has trust settings, which are not read: make it plain (openssl x509)"
        raise ConfigurationError(message)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError as error:
        raise ConfigurationError("what was given of an authority is damaged: its PEM is no base64") from error


def read_crls(data: str | bytes) -> list[bytes]:
    """Return the revocation lists that are in PEM, in DER; nothing: there are none.

    Raises:
        ConfigurationError: One is damaged.
    """
    raw = data.encode("ascii", "replace") if isinstance(data, str) else bytes(data)
    return [_decoded(match[1]) for match in _CRL.finditer(raw)]


def without_crls(pem: bytes) -> bytes:
    """Return PEM without the revocation lists in it."""
    return _CRL.sub(b"", pem)


def split_der(der: bytes) -> list[bytes]:
    """Take apart what stands one behind the other.

    Raises:
        ConfigurationError: It is no DER.
    """
    found, at = [], 0
    while at < len(der):
        end = _end(der, at)
        if der[at] != _SEQUENCE or end > len(der):
            raise ConfigurationError("a certificate of an authority is damaged: it is neither PEM nor DER")
        found.append(der[at:end])
        at = end
    return found


def _end(der: bytes, at: int) -> int:
    first = der[at + 1] if at + 1 < len(der) else 0
    if not first & _LONG:
        return at + _HEAD + first
    count = first & ~_LONG
    return at + _HEAD + count + int.from_bytes(der[at + _HEAD : at + _HEAD + count], "big")
