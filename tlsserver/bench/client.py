"""The TLS of the load's clients: the only file of it that touches pyOpenSSL objects."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from OpenSSL import SSL
from OpenSSL._util import lib as _openssl

import engine_shim
from engine_shim import Status
from tlsserver.bench.failures import kind_of_system_error, kind_of_tls_error
from tlsserver.bench.settings import GROUPS
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from tlsserver.bench.settings import Settings

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# SSL_CTX_set_session_cache_mode(3): sessions are ours to keep.
_NO_SESSION_CACHE = 0


class Client:
    """What all connections of a load have in common.

    Args:
        settings: Of the load.

    Raises:
        ConfigurationError: A setting is nothing that this OpenSSL knows, or a file cannot be read.
        engine_shim.LinkageError: OpenSSL cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._server_name = wire_name(settings.server_name) if settings.server_name else None
        context.set_min_proto_version(_VERSIONS[settings.tls])
        context.set_max_proto_version(_VERSIONS[settings.tls])
        context.set_session_cache_mode(_NO_SESSION_CACHE)
        engine_shim.read_ahead(context)
        _choose_algorithms(context, settings)
        if settings.alpn:
            _offer(context, settings.alpn)
        if settings.ca_certs is None:
            context.set_verify(SSL.VERIFY_NONE)
            engine_shim.believe_certificates(context)
        else:
            _verify(context, settings)

    def connect(self, sock: socket.socket, session: SSL.Session | None) -> Tunnel:
        """Make the TLS of one connection.

        Args:
            sock: Non-blocking, connected or about to be.
            session: What to resume; None: a full handshake.
        """
        connection = SSL.Connection(self._context, sock)
        connection.set_connect_state()
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        if session is not None:
            connection.set_session(session)
        return Tunnel(connection)


class Tunnel(engine_shim.AsyncSSL):
    """The TLS of one connection: no engine, so nothing ever pauses."""

    __slots__ = ("_pyopenssl",)

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection, handshake=False)
        self._pyopenssl = connection

    @property
    def cipher(self) -> str:
        """The suite's name; empty before the handshake has chosen one."""
        return self._pyopenssl.get_cipher_name() or ""

    @property
    def session(self) -> SSL.Session | None:
        """The latest session; in TLS 1.3 it can only be resumed if a ticket was read."""
        return self._pyopenssl.get_session()

    def failure(self, status: Status) -> str:
        """Name what the last call has failed for."""
        if status is Status.SYSCALL:
            return kind_of_system_error(self.system_error)
        if status is Status.CLOSED:
            return kind_of_system_error(0)
        return kind_of_tls_error(self.errors())


def wire_name(name: str) -> bytes:
    """Return a host's name as it is sent (SNI).

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return name.encode("idna")
    except UnicodeError as error:
        raise ConfigurationError(f"server name {name!r} is no host name: {error}; give --server-name") from error


def _choose_algorithms(context: SSL.Context, settings: Settings) -> None:
    groups = settings.groups or GROUPS[settings.tls]
    try:
        engine_shim.set_groups(context, groups)
    except (engine_shim.ShimError, UnicodeError) as error:
        raise ConfigurationError(
            f"key exchange groups {groups!r} cannot be used: this OpenSSL does not know them; write X25519:P-256"
        ) from error
    try:
        if settings.ciphers is not None:
            context.set_cipher_list(settings.ciphers.encode())
    except (SSL.Error, UnicodeError) as error:
        raise ConfigurationError(
            f"cipher list {settings.ciphers!r} has no suite that OpenSSL knows: see `openssl ciphers`"
        ) from error
    suites = settings.ciphersuites.encode(errors="backslashreplace")
    if not suites or _openssl.SSL_CTX_set_ciphersuites(context._context, suites) != 1:  # noqa: SLF001 - public from pyOpenSSL 25.2 on
        _openssl.ERR_clear_error()
        raise ConfigurationError(
            f"cipher suites {settings.ciphersuites!r} are not all known to OpenSSL: see `openssl ciphers -tls1_3`"
        )


def _offer(context: SSL.Context, protocols: Sequence[str]) -> None:
    try:
        context.set_alpn_protos([name.encode() for name in protocols])
    except (SSL.Error, ValueError) as error:
        raise ConfigurationError(
            f"protocols {', '.join(map(repr, protocols))} cannot be offered: --ssl-alpn takes 1 to 255 bytes (RFC 7301)"
        ) from error


def _verify(context: SSL.Context, settings: Settings) -> None:
    try:
        context.load_verify_locations(str(settings.ca_certs))
    except SSL.Error as error:
        raise ConfigurationError(
            f"no certificate can be read from {settings.ca_certs}: give a PEM file with --ssl-ca-certs"
        ) from error
    context.set_verify(SSL.VERIFY_PEER)
    expect_name(context, settings.expected_name)


def expect_name(context: SSL.Context, expected: str) -> None:
    """Let a certificate be verified only if it is for a host's name or address.

    Raises:
        ConfigurationError: It is no host's name.
    """
    parameters = _openssl.SSL_CTX_get0_param(context._context)  # noqa: SLF001 - no public way
    try:
        packed = ipaddress.ip_address(expected).packed
    except ValueError:
        name = wire_name(expected)
        _openssl.X509_VERIFY_PARAM_set1_host(parameters, name, len(name))
    else:
        _openssl.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
