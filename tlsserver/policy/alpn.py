"""Application protocols (RFC 7301), chosen in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import engine_shim
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "encoded"]

_LONGEST = 255


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


def encoded(protocols: Sequence[str]) -> list[bytes]:
    """Return a client's protocols as bytes.

    Raises:
        ConfigurationError: A name is empty, longer than 255 bytes, or not ASCII.
    """
    names = [name.encode("ascii", "replace") for name in protocols]
    if not all(name.isascii() and 0 < len(name) <= _LONGEST for name in protocols):
        raise ConfigurationError(f"ALPN protocols are {list(protocols)}, each must be 1 to {_LONGEST} bytes of ASCII")
    return names
