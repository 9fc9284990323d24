"""Versions of TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from tlsserver.errors import ConfigurationError
from tlsserver.policy.profiles import profile_of

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["VERSIONS", "apply"]

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the least and the newest version; never renegotiation (RFC 5746), never compression (CRIME).

    Raises:
        ConfigurationError: There is no such version or profile, or no version is left.
    """
    least, newest = settings.min_version or profile_of(settings).min_version, settings.max_version
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_min_proto_version(_number(least))
    if newest is None:
        return
    if _number(newest) < _number(least):
        message = f"no version of TLS is left: the newest allowed is {newest}, the least {_why(least, settings)}"
        raise ConfigurationError(message)
    context.set_max_proto_version(_number(newest))


def _why(least: str, settings: ContextSettings) -> str:
    return f"{least}" if settings.min_version else f"{least} (profile {settings.profile}): set the least version too"


def _number(name: str) -> int:
    if name not in VERSIONS:
        message = f"TLS version {name!r} is not known: choose from {', '.join(VERSIONS)}"
        raise ConfigurationError(message)
    return VERSIONS[name]
