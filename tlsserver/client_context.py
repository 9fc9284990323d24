"""What a client's handshakes are made with: whom it trusts, whom it expects, and who it is. Immutable once built.

Facts
- Whoever verifies a certificate and not its name trusts every site of the world in the place of the one it means.
- PyPI's cryptography has an OpenSSL of its own, whose compiled-in folder of authorities is on no machine.
- Python's ssl has security level 2 in most builds, whatever OpenSSL's default is: level 1 lets RSA-1024 in.
- OpenSSL (3.5) sends a client's key shares as its own list of groups says; a list of plain names has one share only.

Decision
- OpenSSL verifies chain and name, in C: no Python frame stands on a job's stack.
- The default authorities are those of Python's ssl, as users expect (`ssl.get_default_verify_paths`).
- Groups are OpenSSL's, unless they are named; everything else is the profile's, as for servers.
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import clients, context_facts, peer
from engine_shim.handshake_policy import set_ciphers
from tlsserver.errors import ConfigurationError
from tlsserver.policy import alpn, groups, identity, key_log, signature_algorithms, suites, versions
from tlsserver.policy.authorities import read_authorities, read_crls
from tlsserver.policy.files import readable
from tlsserver.policy.settings import ClientOptions, ContextSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Unpack

    from engine_shim import AsyncSSL, BaseEngine, Key
    from engine_shim.identity import Identity

__all__ = ["ClientContext"]


class ClientContext:
    """Whom a client trusts, and who it is. Immutable once built; any thread may use it.

    Args:
        certificate: Path of a PEM file: the client's certificate, then its chain; None: it has none.
        key: Of that certificate: an `engine_shim.Key`, whose engine performs it, or the path of a private key; None: it
            is in the certificate's file.
        ca_certs: PEM file of authorities.
        ca_path: Folder of authorities, as c_rehash makes it; looked into when a chain is verified.
        ca_data: More of them: PEM as text or bytes, or DER one behind the other. Revocation lists in PEM are looked at
            with VERIFY_CRL_CHECK_LEAF or VERIFY_CRL_CHECK_CHAIN.
        default_paths: Whether to trust the system's authorities, those of Python's ssl; None: if no others are given.
        verify: Whether the server's certificate is verified. Never False outside of tests.
        check_hostname: Whether it must be for the server's name; not without ``verify``.
        check_common_name: Whether the subject's common name counts where a certificate has no DNS name, as Python's ssl
            has it.
        verify_flags: More flags of the verification (X509_VERIFY_PARAM_set_flags(3)), numbers of `ssl.VerifyFlags`.
        options: Those of servers, too: the fields of `tlsserver.policy.settings.ClientOptions`; `ContextSettings` there
            says what each is.

    Raises:
        ConfigurationError: A file or a setting cannot work.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
        TypeError: There is no such option.
    """

    __slots__ = (
        "__weakref__",
        "_async_io",
        "_check_common_name",
        "_check_hostname",
        "_connect",
        "_engines",
        "_pyopenssl",
    )

    def __init__(
        self,
        *,
        certificate: str | Path | None = None,
        key: Key | Identity | str | Path | None = None,
        ca_certs: str | Path | None = None,
        ca_path: str | Path | None = None,
        ca_data: str | bytes | None = None,
        default_paths: bool | None = None,
        verify: bool = True,
        check_hostname: bool = True,
        check_common_name: bool = True,
        verify_flags: int = 0,
        **options: Unpack[ClientOptions],
    ) -> None:
        unknown = options.keys() - ClientOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"ClientContext() got an unexpected keyword argument {min(unknown)!r}")
        # A client has the settings of a server, but for what only a server decides.
        settings = ContextSettings(certificate or "", key or certificate or "", **options)
        if certificate is None and key is not None:
            raise ConfigurationError("the client has a key and no certificate for it: give the certificate's file too")
        engine_shim.attach()
        self._pyopenssl = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        for part in (versions.apply, _apply_suites, signature_algorithms.apply, _apply_groups, _apply_alpn):
            part(context, settings)
        if certificate is not None:
            identity.apply(context, settings)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if default_paths is None:
            default_paths = verify and ca_certs is ca_path is ca_data is None
        _trust(context, ca_certs, ca_path, ca_data, defaults=default_paths)
        context.set_verify(SSL.VERIFY_PEER if verify else SSL.VERIFY_NONE)
        if verify_flags:
            clients.set_flags(context, verify_flags)
        key_log.apply(context, settings)  # last: what cannot work makes no file
        self._take(settings.async_io, () if certificate is None else identity.engines_of(settings))
        self._check_hostname = verify and check_hostname
        self._check_common_name = check_common_name

    def _take(self, async_io: bool, engines: tuple[BaseEngine, ...]) -> None:
        self._async_io = async_io
        self._engines = engines
        self._connect: Callable[[int], AsyncSSL] = engine_shim.Connector(
            self._pyopenssl, handshake=self.offloaded, io=async_io
        ).connect

    def connect(self, sock: socket.socket, server_hostname: str | None) -> AsyncSSL:
        """Make the client's end of a connection, before its handshake.

        Args:
            sock: Connected and non-blocking; it stays the caller's, and must stay open until the end is closed.
            server_hostname: The name or the IP address of the server: names are asked for (SNI), both are what the
                server's certificate must be for. None: the name is neither asked for nor checked.

        Raises:
            ConfigurationError: It is missing and was to be checked, or it is no name.
            MemoryError: There is none.
            TypeError: It is no text.
        """
        who = _read_name(server_hostname)
        if who is None and self._check_hostname:
            raise ConfigurationError("check_hostname requires server_hostname: name the server, or do not check")
        tls = self._connect(sock.fileno())
        try:
            if isinstance(who, bytes):
                peer.ask_for_name(tls, who)
            if who is not None and self._check_hostname:
                peer.expect(tls, who, common_name=self._check_common_name)
        except engine_shim.ShimError as error:
            tls.close()
            raise ConfigurationError(f"server name {server_hostname!r} cannot be used: {error}") from error
        return tls

    @property
    def pyopenssl(self) -> SSL.Context:
        """The pyOpenSSL Context that connections are made of."""
        return self._pyopenssl

    @property
    def engine(self) -> BaseEngine | None:
        """Where the client's first private key is used; None: on the loop's thread, by OpenSSL, or there is none."""
        return next(iter(self._engines), None)

    @property
    def engines(self) -> tuple[BaseEngine, ...]:
        """All engines of this context."""
        return self._engines

    @property
    def offloaded(self) -> bool:
        """Whether handshakes run in jobs, so that an engine can pause them."""
        return bool(self._engines) or self._async_io

    @property
    def async_io(self) -> bool:
        """Whether reading and writing run in jobs as well."""
        return self._async_io

    @property
    def verify(self) -> bool:
        """Whether the server's certificate is verified."""
        return self._pyopenssl.get_verify_mode() != SSL.VERIFY_NONE

    @property
    def check_hostname(self) -> bool:
        """Whether the server's name is verified."""
        return self._check_hostname

    def __repr__(self) -> str:
        verified = "" if self.verify else " verifies nothing"
        return f"<ClientContext engine={self.engine.name if self.engine else 'off'}{verified}>"


def _apply_suites(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the suites; the security level is not below that of Python's ssl, unless the suites name one."""
    suites.apply(context, settings)
    ciphers = suites.ciphers_of(settings)
    least = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).security_level
    if "@SECLEVEL" not in ciphers and context_facts.security_level(context) < least:
        set_ciphers(context, f"{ciphers}:@SECLEVEL={least}")


def _apply_groups(context: SSL.Context, settings: ContextSettings) -> None:
    if settings.groups is not None:
        groups.apply(context, settings)


def _apply_alpn(context: SSL.Context, settings: ContextSettings) -> None:
    if settings.alpn:
        context.set_alpn_protos(alpn.encoded(settings.alpn))


def _trust(
    context: SSL.Context,
    ca_certs: str | Path | None,
    ca_path: str | Path | None,
    ca_data: str | bytes | None,
    *,
    defaults: bool,
) -> None:
    if defaults:
        found = ssl.get_default_verify_paths()
        _load(context, found.cafile, found.capath)
    if ca_certs is not None:
        with readable("authorities", ca_certs):
            Path(ca_certs).open("rb").close()
    if ca_path is not None and not Path(ca_path).is_dir():
        raise ConfigurationError(f"CA folder {ca_path}: is no folder that this process may read")
    _load(context, ca_certs, ca_path)
    if ca_data is not None:
        _trust_data(context, ca_data)


def _trust_data(context: SSL.Context, data: str | bytes) -> None:
    """Trust what is in the data, which may be revocation lists alone."""
    crls = read_crls(data)
    for der in read_authorities(data, needed=not crls):
        clients.trust(context, der, named=False)
    for crl in crls:
        clients.revoke(context, crl, 0)


def _load(context: SSL.Context, file: str | Path | None, folder: str | Path | None) -> None:
    if file is None and folder is None:
        return
    try:
        context.load_verify_locations(file and str(file), folder and str(folder))
    except SSL.Error as error:
        raise ConfigurationError(f"no certificate can be read from {file}: give a PEM file of authorities") from error


def _read_name(name: str | None) -> bytes | ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Tell an address from a name, which is put as DNS has it (RFC 5890).

    It is put so first, as Python's ssl does: digits of other scripts make an address, too.
    """
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"server name {name!r} is no str: give a host name or an IP address as text")
    try:
        encoded = name.encode("idna")
    except UnicodeError as error:
        raise ConfigurationError(f"server name {name!r} is no host name: {error}") from error
    try:
        return ipaddress.ip_address(encoded.decode("ascii"))
    except ValueError:
        pass
    if not encoded or encoded.startswith(b".") or b"\0" in encoded:
        raise ConfigurationError(f"server name {name!r} is no host name: give one, or an IP address")
    return encoded
