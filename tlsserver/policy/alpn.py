"""Application protocols (RFC 7301), chosen in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import engine_shim
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Offer the protocols, if there are any.

    Raises:
        ConfigurationError: A name is empty or longer than 255 bytes.
    """
    try:
        if settings.alpn:
            engine_shim.set_alpn(context, settings.alpn)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
