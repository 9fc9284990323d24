"""Certificate and private key."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Key
    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "reason"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Load the certificate and its chain, then the key.

    Raises:
        ConfigurationError: A file cannot be read, or is no certificate.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
    """
    _set_certificate(context, Path(settings.certificate))
    _set_key(context, settings.key, settings.password)


@contextmanager
def _readable(what: str, path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{what} {path}: {error.strerror}: give the path of a file that this process may read"
        raise ConfigurationError(message) from error


def _set_certificate(context: SSL.Context, path: Path) -> None:
    with _readable("certificate", path):
        data = path.read_bytes()
    if b"-----BEGIN" not in data:
        message = f"certificate {path} is not a PEM file: convert it with `openssl x509 -inform DER`"
        raise ConfigurationError(message)
    try:
        context.use_certificate_chain_file(str(path))
    except SSL.Error as error:
        message = f"certificate {path} cannot be used: {reason(error)}"
        raise ConfigurationError(message) from error


def _set_key(context: SSL.Context, key: Key | str | Path, password: str | bytes | None) -> None:
    if isinstance(key, engine_shim.Key):
        key.use(context)
    else:
        with _readable("private key", key):
            engine_shim.use_plain_key(context, key, password)


def reason(error: SSL.Error) -> str:
    """Return what OpenSSL says about an error, in a few words."""
    entries = error.args[0] if error.args else []
    return entries[0][-1] if entries else "OpenSSL gives no reason"
