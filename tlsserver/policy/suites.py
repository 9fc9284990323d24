"""Cipher suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["INTERMEDIATE_CIPHERS", "apply"]

# Mozilla's intermediate profile (guidelines 5.7): forward secrecy and AEAD only. TLS 1.3 suites are OpenSSL's own.
INTERMEDIATE_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the suites of TLS 1.2.

    Raises:
        ConfigurationError: OpenSSL knows none of them.
    """
    ciphers = settings.ciphers or INTERMEDIATE_CIPHERS
    try:
        context.set_cipher_list(ciphers.encode())
    except (SSL.Error, UnicodeError) as error:
        message = f"cipher list {ciphers!r} has no suite that OpenSSL knows: see `openssl ciphers`"
        raise ConfigurationError(message) from error
