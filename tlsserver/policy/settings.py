"""The settings of a context, frozen, each default with its reason. A leaf but for the errors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engine_shim import Engine, Key
    from tlsserver.client_hello import ClientHelloRequest
    from tlsserver.policy.certificate import Certificate

__all__ = ["ContextChanges", "ContextOptions", "ContextSettings"]


class ContextOptions(TypedDict, total=False):
    """The fields of `ContextSettings` as the keyword arguments of `tlsserver.TLSContext`; a test compares the two."""

    password: str | bytes | None
    engine: Engine | None
    alpn: Sequence[str]
    min_version: str
    max_version: str | None
    ciphers: str | None
    async_io: bool
    key_exchange_ahead: bool
    certificates: Sequence[Certificate]
    unknown_names: str
    on_client_hello: Callable[[ClientHelloRequest], object] | None


class ContextChanges(ContextOptions, total=False):
    """What `tlsserver.TLSContext.replace` takes."""

    certificate: str | Path
    key: Key | str | Path


@dataclass(frozen=True)
class ContextSettings:
    """What a context is made of.

    Attributes:
        certificate: Path of a PEM file: the server's certificate, then its chain.
        key: An `engine_shim.Key`, whose engine performs it, or the path of a private key (or whatever else ``engine``
            loads keys by), which is read anew for each context.
        password: Of the private key, where ``key`` is a path.
        engine: Performs a key that is given by its path; None: OpenSSL does, on the loop's thread.
        alpn: Application protocols in the order of preference (RFC 7301); empty: the extension is ignored.
        min_version: ``"1.2"`` or ``"1.3"``. Older ones are forbidden (RFC 8996).
        max_version: The same; None: the newest that OpenSSL has.
        ciphers: TLS 1.2 suites, in OpenSSL's form (ciphers(1)); None: Mozilla's intermediate profile.
        async_io: Whether reading and writing run in jobs too, for engines that offload ciphers.
        key_exchange_ahead: Whether X25519 key pairs are made ahead of need, eight at a time, where this machine can
            (engine_shim.key_exchange); False: OpenSSL makes each when it is needed, as it does elsewhere.
        certificates: More `tlsserver.Certificate`, each for its names; ``certificate`` is for all other clients.
        unknown_names: ``"default"``: whoever asks for a name that no certificate is for gets ``certificate``, as most
            servers do it; ``"strict"``: is refused (the alert unrecognized_name). Who names nobody is never refused.
        on_client_hello: Called with a `tlsserver.ClientHelloRequest` for each handshake, on the loop's thread; the
            handshake is parked until the request is answered. None: nobody is asked.
    """

    certificate: str | Path
    key: Key | str | Path
    password: str | bytes | None = None
    engine: Engine | None = None
    alpn: Sequence[str] = ()
    min_version: str = "1.2"
    max_version: str | None = None
    ciphers: str | None = None
    async_io: bool = False
    key_exchange_ahead: bool = True
    certificates: Sequence[Certificate] = ()
    unknown_names: str = "default"
    on_client_hello: Callable[[ClientHelloRequest], object] | None = None

    def files(self) -> tuple[str | Path, ...]:
        """Return what was read, to be looked at for changes; names that are no files are among them."""
        own = (self.certificate, *((self.key,) if isinstance(self.key, (str, PurePath)) else ()))
        return (*own, *(file for one in self.certificates for file in one.files()))

    def with_changes(self, changes: ContextChanges) -> dict[str, Any]:
        """Return these settings as keyword arguments, changed."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, **changes}
