"""A certificate with its key, for the server names that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

import engine_shim
from engine_shim.identity import Identity
from engine_shim.server_names import is_name
from tlsserver import certificates
from tlsserver.errors import ConfigurationError
from tlsserver.policy.files import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim import BaseEngine, Engine, Key

__all__ = ["LOOKED_AT_MOST", "Certificate"]

# How many certificates of names are looked at for their times: it takes some 0.1 ms each.
LOOKED_AT_MOST = 64


class Certificate:
    """A certificate and its key, not loaded before it is needed. Immutable; any thread may use it.

    Args:
        certificate: PEM: the certificate, then its chain; a path, or the bytes.
        key: An :class:`engine_shim.Key` of any engine; or a path, or PEM or DER bytes. A path is loaded by the
            context's ``engine``, if it has one.
        names: Host names that it is for, ``*.`` for any one label in front; None: those that it was made for (its
            subjectAltName's DNS names, RFC 9525).
        password: Of the private key, where ``key`` is a path or bytes.
    """

    __slots__ = ("_loaded", "_names", "_password", "certificate", "key")

    def __init__(
        self,
        certificate: str | Path | bytes,
        key: Key | str | Path | bytes,
        *,
        names: Sequence[str] | None = None,
        password: str | bytes | None = None,
    ) -> None:
        self.certificate = certificate
        self.key = key
        self._names = names if names is None else tuple(names)
        self._password = password
        self._loaded: tuple[Engine | None, Identity] | None = None

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return "certificate (bytes)" if isinstance(self.certificate, bytes) else f"certificate {self.certificate}"

    def names(self) -> tuple[str, ...]:
        """Return the names that it is for.

        Raises:
            ConfigurationError: None were given, and it cannot be read or has none.
        """
        if self._names is not None:
            return self._names
        parsed = self._parsed()
        try:
            extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            found = extension.value.get_values_for_type(x509.DNSName)
        except (x509.ExtensionNotFound, ValueError):
            found = []
        names = tuple(name for name in found if is_name(name))
        if not names:
            message = f"{self.label} is for no host name (it has no DNS name in its subjectAltName): give names"
            raise ConfigurationError(message)
        return names

    def kind(self) -> str:
        """Return the kind of its key: a connection has one certificate of each kind.

        Raises:
            ConfigurationError: It cannot be read.
        """
        parsed = self._parsed()
        try:
            return type(parsed.public_key()).__name__.strip("_").removesuffix("PublicKey")
        except (UnsupportedAlgorithm, ValueError):
            return "other"

    def chain(self) -> list[x509.Certificate]:
        """Return it, and the others of its chain; none: it cannot be read, which whoever loads it says."""
        try:
            return certificates.read_chain(self._pem())
        except (ConfigurationError, ValueError):  # cryptography is stricter than OpenSSL
            return []

    def files(self) -> tuple[str | Path, ...]:
        """Return what it is read from."""
        return tuple(one for one in (self.certificate, self.key) if isinstance(one, (str, Path)))

    def engine_of(self, engine: Engine | None) -> BaseEngine | None:
        """Return who performs its key, in a context with this engine; None: OpenSSL does."""
        return self.key.engine if isinstance(self.key, engine_shim.Key) else engine

    def load(self, identity: Identity, engine: Engine | None) -> None:
        """Read it, and add it to an identity.

        Args:
            identity: What it is added to.
            engine: Loads and performs a key that is given by its path.

        Raises:
            ConfigurationError: A file cannot be read, or the key is not the certificate's.
        """
        key: Key | str | Path | bytes = self.key
        try:
            if not isinstance(key, engine_shim.Key):
                with readable("private key", key if isinstance(key, (str, Path)) else "(bytes)"):
                    if engine is not None:
                        key = engine.load_key(key, self._password)
                    identity.add(self._pem(), key, self._password)
            else:
                identity.add(self._pem(), key)
        except (engine_shim.ShimError, IndexError) as error:
            message = f"{self.label} cannot be used: {error}"
            raise ConfigurationError(message) from error

    def identity(self, engine: Engine | None) -> Identity:
        """Return it alone, loaded once for all the handshakes that are answered with it.

        Raises:
            ConfigurationError: A file cannot be read, or the key is not the certificate's.
        """
        loaded = self._loaded
        if loaded is None or loaded[0] is not engine:
            identity = Identity()
            self.load(identity, engine)
            loaded = self._loaded = (engine, identity)  # whole: other threads may read it
        return loaded[1]

    def _pem(self) -> bytes:
        if isinstance(self.certificate, bytes):
            return self.certificate
        with readable("certificate", self.certificate):
            return Path(self.certificate).read_bytes()

    def _parsed(self) -> x509.Certificate:
        pem = self._pem()
        try:
            return x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            message = f"{self.label} cannot be read: it has no PEM certificate: convert it with `openssl x509`"
            raise ConfigurationError(message) from error

    def __repr__(self) -> str:
        return f"<Certificate {self.label.removeprefix('certificate ')}>"
