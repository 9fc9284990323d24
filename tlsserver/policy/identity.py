"""Certificate and private key."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim.identity import Identity
from tlsserver import certificates
from tlsserver.errors import ConfigurationError
from tlsserver.policy.certificate import LOOKED_AT_MOST
from tlsserver.policy.files import readable

if TYPE_CHECKING:
    from engine_shim import BaseEngine
    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "engine_of", "engines_of", "expires", "readable", "reason", "set_certificate", "set_key"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Load the certificate and its chain, then the key.

    Raises:
        ConfigurationError: A file cannot be read, or is no certificate; or the key is another engine's.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
    """
    set_certificate(context, settings)
    set_key(context, settings)


def engine_of(settings: ContextSettings) -> BaseEngine | None:
    """Return who performs the key, the first of several; None: OpenSSL, on the loop's thread."""
    return next(iter(engines_of(settings)), None)


def engines_of(settings: ContextSettings) -> tuple[BaseEngine, ...]:
    """Return all who perform its keys; none: OpenSSL, on the loop's thread."""
    if isinstance(settings.key, Identity):
        return settings.key.engines
    engine = settings.key.engine if isinstance(settings.key, engine_shim.Key) else settings.engine
    return () if engine is None else (engine,)


def expires(settings: ContextSettings) -> float | None:
    """Return when the first certificate expires, in seconds since 1970; None: unknown.

    Of the chain, and of the first 64 that are for single names, which are read at the start as well.
    """
    ends = []
    for one in settings.certificates[:LOOKED_AT_MOST]:
        with contextlib.suppress(ConfigurationError):  # which costs those who ask for it, not the others
            ends.append(one.expires())
    chain = certificates.maybe_chain(settings.certificate)
    return min((*ends, *(certificates.not_after(one).timestamp() for one in chain)), default=None)


def set_certificate(context: SSL.Context, settings: ContextSettings) -> None:
    """Load the certificate and its chain.

    Raises:
        ConfigurationError: The file cannot be read, or is no certificate.
    """
    if isinstance(settings.key, Identity):  # it comes with its key
        return
    path = Path(settings.certificate)
    with readable("certificate", path):
        data = path.read_bytes()
    if b"-----BEGIN" not in data:
        message = f"certificate {path} is not a PEM file: convert it with `openssl x509 -inform DER`"
        raise ConfigurationError(message)
    try:
        context.use_certificate_chain_file(str(path))
    except SSL.Error as error:
        message = f"certificate {path} cannot be used: {reason(error)}"
        raise ConfigurationError(message) from error


def set_key(context: SSL.Context, settings: ContextSettings) -> None:
    """Load the key, whose certificate is there.

    Raises:
        ConfigurationError: The file cannot be read, or the key is another engine's.
        engine_shim.ShimError: It cannot be read or is not the certificate's.
    """
    key, engine, password = settings.key, settings.engine, settings.password
    if isinstance(key, Identity):
        key.use(context)
        return
    if isinstance(key, engine_shim.Key):
        if engine not in (None, key.engine):
            message = f"the key is in engine {key.engine.name}, and the engine {engine.name} is given as well: give one"
            raise ConfigurationError(message)
        key.use(context)
        return
    with readable("private key", key):
        if engine is None:
            engine_shim.use_plain_key(context, key, password)
        else:
            engine.load_key(key, password).use(context)


def reason(error: SSL.Error) -> str:
    """Return what OpenSSL says about an error, in a few words."""
    entries = error.args[0] if error.args else []
    return entries[0][-1] if entries else "OpenSSL gives no reason"
