"""The settings of a context, frozen, each default with its reason. A leaf but for the errors."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engine_shim import Engine, Key, TicketKeys
    from engine_shim.identity import Identity
    from tlsserver.client_hello import ClientHelloRequest
    from tlsserver.policy.certificate import Certificate
    from tlsserver.policy.client_certificates import ClientCertificates, Trust
    from tlsserver.policy.ticket_source import TicketSource

    TicketSetting = TicketSource | TicketKeys | str | Path | Sequence[str | Path] | None

__all__ = ["ClientOptions", "ContextChanges", "ContextOptions", "ContextSettings"]


class ClientOptions(TypedDict, total=False):
    """What clients have in common with servers: keyword arguments of `tlsserver.ClientContext`."""

    password: str | bytes | None
    engine: Engine | None
    alpn: Sequence[str]
    min_version: str | None
    max_version: str | None
    ciphers: str | None
    async_io: bool
    profile: str
    ciphersuites: str | Sequence[str] | None
    groups: str | Sequence[str] | None
    signature_algorithms: str | Sequence[str] | None
    key_log: str | Path | None


class ContextOptions(ClientOptions, total=False):
    """The fields of `ContextSettings` as the keyword arguments of `tlsserver.TLSContext`; a test compares the two."""

    key_exchange_ahead: bool
    ticket_keys: TicketSetting
    # What is negotiated.
    num_tickets: int
    session_lifetime: int
    session_cache_size: int
    client_certificates: ClientCertificates | None
    ocsp_staple: str | Path | None
    certificates: Sequence[Certificate]
    unknown_names: str
    on_client_hello: Callable[[ClientHelloRequest], object] | None


class ContextChanges(ContextOptions, total=False):
    """What `tlsserver.TLSContext.replace` takes."""

    certificate: str | Path
    key: Key | Identity | str | Path


@dataclass(frozen=True)
class ContextSettings:
    """What a context is made of.

    Attributes:
        certificate: Path of a PEM file: the server's certificate, then its chain.
        key: An `engine_shim.Key`, whose engine performs it, or the path of a private key (or whatever else ``engine``
            loads keys by), which is read anew for each context; or an `engine_shim.identity.Identity`, which has the
            certificates as well, so that ``certificate`` is only what they were read from.
        password: Of the private key, where ``key`` is a path.
        engine: Performs a key that is given by its path; None: OpenSSL does, on the loop's thread.
        alpn: Application protocols in the order of preference (RFC 7301); empty: the extension is ignored.
        min_version: ``"1.2"`` or ``"1.3"``; None: the profile's. Older ones are forbidden (RFC 8996).
        max_version: The same; None: the newest that OpenSSL has.
        ciphers: TLS 1.2 suites, in OpenSSL's form (ciphers(1)); None: the profile's.
        async_io: Whether reading and writing run in jobs too, for engines that offload ciphers.
        client_certificates: Which certificates clients are asked for; None: none, because most clients have none.
        key_exchange_ahead: Whether X25519 key pairs are made ahead of need, eight at a time, where this machine can
            (engine_shim.key_exchange); False: OpenSSL makes each when it is needed, as it does elsewhere.
        ticket_keys: What session tickets are sealed with: the path of a file of keys (or several, of which the first
            encrypts), the URL of a Redis, `engine_shim.TicketKeys` of your own, or None: random keys of this process
            and those that it forks, which rotate by time. `tlsserver.TLSContext.replace` hands them on.
        profile: ``"intermediate"`` (TLS 1.2 and 1.3) or ``"modern"`` (TLS 1.3 alone), after Mozilla: what holds where
            the settings beside it say nothing. Intermediate, because clients that are no browsers still
            come with TLS 1.2.
        ciphersuites: TLS 1.3 suites by name, in a sequence or with colons between them; None: the profile's.
        groups: Of the key exchange, the same way, the preferred one first; None: X25519MLKEM768 where this OpenSSL has
            it, then X25519, P-256, P-384 (tlsserver.policy.groups).
        signature_algorithms: The same way; None: OpenSSL's, which leave out what is broken.
        num_tickets: Tickets after a full handshake of TLS 1.3, 0 to 32. Two, as OpenSSL has it: each is for one
            connection (RFC 8446, appendix C.4), and a client may open two at once.
        session_lifetime: Seconds for which a session may be resumed, at most seven days. Two hours, as OpenSSL has it:
            in TLS 1.2 who steals a session's secret can read what was resumed from it in that time.
        session_cache_size: Sessions in memory, for clients of TLS 1.2 without tickets, which are few; 0: none, as where
            clients are asked for certificates, which nobody would look at again. 4096 are 4 MB (1.0 to 1.3 KB each,
            measured); OpenSSL's own bound is 20480.
        key_log: File that the secrets of all handshakes are appended to, for Wireshark; None: no secret leaves. Never
            in production.
        ocsp_staple: Path of an OCSP response in DER, as ``openssl ocsp -respout`` writes it, to go with the
            certificate; None: clients get none, and most do not miss it.
        certificates: More `tlsserver.Certificate`, each for its names; ``certificate`` is for all other clients.
        unknown_names: ``"default"``: whoever asks for a name that no certificate is for gets ``certificate``, as most
            servers do it; ``"strict"``: is refused (the alert unrecognized_name). Who names nobody is never refused.
        on_client_hello: Called with a `tlsserver.ClientHelloRequest` for each handshake, on the loop's thread; the
            handshake is parked until the request is answered. None: nobody is asked.
    """

    certificate: str | Path
    key: Key | Identity | str | Path
    password: str | bytes | None = field(default=None, repr=False)
    engine: Engine | None = None
    alpn: Sequence[str] = ()
    min_version: str | None = None
    max_version: str | None = None
    ciphers: str | None = None
    async_io: bool = False
    key_exchange_ahead: bool = True
    ticket_keys: TicketSetting = field(default=None, repr=False)  # a URL may have a password in it
    # What is negotiated.
    profile: str = "intermediate"
    ciphersuites: str | Sequence[str] | None = None
    groups: str | Sequence[str] | None = None
    signature_algorithms: str | Sequence[str] | None = None
    num_tickets: int = 2
    session_lifetime: int = 7200
    session_cache_size: int = 4096
    key_log: str | Path | None = None

    client_certificates: ClientCertificates | None = None
    ocsp_staple: str | Path | None = None
    # Server names.
    certificates: Sequence[Certificate] = ()
    unknown_names: str = "default"
    on_client_hello: Callable[[ClientHelloRequest], object] | None = None

    def files(self) -> tuple[str | Path, ...]:
        """Return what was read, to be looked at for changes; names that are no files are among them."""
        key = (self.key,) if isinstance(self.key, (str, PurePath)) else ()
        clients = () if self.client_certificates is None else self.client_certificates.files()
        staple = () if self.ocsp_staple is None else (self.ocsp_staple,)
        more = (file for one in self.certificates for file in one.files())
        return (self.certificate, *key, *getattr(self.ticket_keys, "files", ()), *clients, *staple, *more)

    @cached_property
    def client_trust(self) -> Trust | None:
        """What the files of `client_certificates` come to, read once, so that all parts see the same; None: no such.

        Raises:
            ConfigurationError: They cannot work.
        """
        return None if self.client_certificates is None else self.client_certificates.read()

    def with_changes(self, changes: ContextChanges) -> dict[str, Any]:
        """Return these settings as keyword arguments, changed."""
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, **changes}
