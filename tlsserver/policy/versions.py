"""Versions of TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["VERSIONS", "apply"]

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the least and the newest version; never renegotiation (RFC 5746), never compression (CRIME).

    Raises:
        ConfigurationError: There is no such version.
    """
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_min_proto_version(_number(settings.min_version))
    if settings.max_version is not None:
        context.set_max_proto_version(_number(settings.max_version))


def _number(name: str) -> int:
    if name not in VERSIONS:
        message = f"TLS version {name!r} is not known: choose from {', '.join(VERSIONS)}"
        raise ConfigurationError(message)
    return VERSIONS[name]
