"""A certificate with its key, for the server names that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

import engine_shim
from engine_shim.identity import Identity
from engine_shim.server_names import is_name
from tlsserver import certificates
from tlsserver.errors import ConfigurationError
from tlsserver.policy.files import readable, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim import BaseEngine, Engine, Key
    from tlsserver.policy.files import Stamp

__all__ = ["LOOKED_AT_MOST", "Certificate"]

# How many certificates of names are looked at for their times: it takes some 0.1 ms each.
LOOKED_AT_MOST = 64


_RSASSA_PSS = x509.ObjectIdentifier("1.2.840.113549.1.1.10")


class _Facts(NamedTuple):
    names: tuple[str, ...]
    kind: str
    expires: float


class Certificate:
    """A certificate and its key, not loaded before it is needed. Immutable; any thread may use it.

    Args:
        certificate: PEM: the certificate, then its chain; a path, or the bytes.
        key: An :class:`engine_shim.Key` of any engine; or a path, or PEM or DER bytes. A path is loaded by the
            context's ``engine``, if it has one. Or an `engine_shim.identity.Identity`, which has both.
        names: Host names that it is for, ``*.`` for any one label in front; None: those that it was made for (its
            subjectAltName's DNS names, RFC 9525).
        password: Of the private key, where ``key`` is a path or bytes.
    """

    __slots__ = ("_facts", "_loaded", "_names", "_password", "certificate", "key")

    def __init__(
        self,
        certificate: str | Path | bytes,
        key: Key | Identity | str | Path | bytes,
        *,
        names: Sequence[str] | None = None,
        password: str | bytes | None = None,
    ) -> None:
        self.certificate = certificate
        self.key = key
        self._names = names if names is None else tuple(names)
        self._password = password
        # Both are replaced as a whole: other threads may read them.
        self._facts: tuple[Stamp, _Facts] | None = None
        self._loaded: tuple[Engine | None, tuple[Stamp, ...], Identity] | None = None

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
        names = self._parsed().names
        if not names:
            message = f"{self.label} is for no host name (it has no DNS name in its subjectAltName): give names"
            raise ConfigurationError(message)
        return names

    def kind(self) -> str:
        """Return the kind of its key: a connection has one certificate of each kind.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return self._parsed().kind

    def expires(self) -> float:
        """Return when, in seconds since 1970.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return self._parsed().expires

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
        if isinstance(self.key, Identity):
            return next(iter(self.key.engines), None)
        return self.key.engine if isinstance(self.key, engine_shim.Key) else engine

    def load(self, identity: Identity, engine: Engine | None) -> None:
        """Read it, and add it to an identity.

        Args:
            identity: What it is added to.
            engine: Loads and performs a key that is given by its path.

        Raises:
            ConfigurationError: A file cannot be read, or the key is not the certificate's.
        """
        key: Key | Identity | str | Path | bytes = self.key
        if isinstance(key, Identity):
            identity.take(key)
            return
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
        """Return it alone, loaded once for all the handshakes that are answered with it, until its files change.

        Raises:
            ConfigurationError: A file cannot be read, or the key is not the certificate's.
        """
        loaded, stamps = self._loaded, tuple(stamp(file) for file in self.files())
        if loaded is None or loaded[0] is not engine or loaded[1] != stamps:
            identity = Identity()
            self.load(identity, engine)
            loaded = self._loaded = (engine, stamps, identity)
        return loaded[2]

    def _pem(self) -> bytes:
        if isinstance(self.certificate, bytes):
            return self.certificate
        with readable("certificate", self.certificate):
            return Path(self.certificate).read_bytes()

    def _parsed(self) -> _Facts:
        """Return what it says, read anew when the file has changed: a reload looks at thousands of them."""
        now = None if isinstance(self.certificate, bytes) else stamp(self.certificate)
        facts = self._facts
        if facts is None or facts[0] != now:
            pem = self._pem()
            try:
                parsed = x509.load_pem_x509_certificate(pem)
            except ValueError as error:
                message = f"{self.label} cannot be read: it has no PEM certificate: convert it with `openssl x509`"
                raise ConfigurationError(message) from error
            end = certificates.not_after(parsed).timestamp()
            facts = self._facts = (now, _Facts(_names_of(parsed), _kind_of(parsed), end))
        return facts[1]

    def __repr__(self) -> str:
        return f"<Certificate {self.label.removeprefix('certificate ')}>"


def _names_of(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name for name in extension.value.get_values_for_type(x509.DNSName) if is_name(name))


def _kind_of(parsed: x509.Certificate) -> str:
    # cryptography makes the same of both kinds of RSA; OpenSSL has a place for each.
    algorithm = getattr(parsed, "public_key_algorithm_oid", None)  # since cryptography 43
    if algorithm == _RSASSA_PSS:
        return "RSA-PSS"
    try:
        return type(parsed.public_key()).__name__.strip("_").removesuffix("PublicKey")
    except (UnsupportedAlgorithm, ValueError):
        return "other"
