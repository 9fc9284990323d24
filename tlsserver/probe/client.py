"""One connection of a probe: the only file of it that touches pyOpenSSL objects. Blocking, with a deadline."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from OpenSSL import SSL
from OpenSSL._util import lib as _openssl

import engine_shim
from engine_shim import Status, peer
from tlsserver.bench.client import Tunnel, expect_name, wire_name
from tlsserver.bench.failures import TIMEOUT, kind_of_system_error
from tlsserver.errors import ConfigurationError, TLSServerError
from tlsserver.probe.offer import GROUPS

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from engine_shim import Settled
    from tlsserver.bench.addresses import Target
    from tlsserver.probe.offer import Offer

__all__ = ["Client", "NotOfferedError", "RefusedError", "Seen", "UnreachableError", "groups_known", "suites_known"]

_VERSIONS = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}
# What is forbidden by default is offered all the same: to see it refused. SSL_CTX_set_security_level(3).
_ANY_LEVEL = "@SECLEVEL=0"
# Of OpenSSL's own: it has nothing to offer, and nothing was sent.
_NOTHING_TO_OFFER = ("no protocols available", "no ciphers available", "no suitable key share", "no suitable groups")
# A server that has been told goodbye sends its tickets and ends; one that does not end is not waited for.
_GOODBYE = 1.0
_LEGACY_SERVER_CONNECT = 0x4  # ssl.h: SSL_OP_LEGACY_SERVER_CONNECT


class UnreachableError(TLSServerError):
    """There is no connection to be had."""


class RefusedError(TLSServerError):
    """The server has refused what was offered, or has failed."""


class NotOfferedError(TLSServerError):
    """This OpenSSL cannot offer it."""


@dataclass(frozen=True)
class Seen:
    """What a handshake has shown.

    Attributes:
        settled: Version, suite, group, protocol, resumption.
        seconds: From the first byte to the end of the handshake.
        certificates: As sent, where the offer was to be verified.
        verified: Number and words of what the verification came to.
        staple: The OCSP response, DER; empty: none.
        is_safe: Whether the server knows secure renegotiation (RFC 5746).
        has_ticket: Whether the session has come as a ticket.
        sessions: How many sessions have come.
        session: The latest.
        context: What the connection was made of: pyOpenSSL resumes a session only there.
    """

    settled: Settled
    seconds: float
    certificates: tuple[x509.Certificate, ...]
    verified: tuple[int, str]
    staple: bytes
    is_safe: bool
    has_ticket: bool
    sessions: int
    session: SSL.Session | None
    context: SSL.Context


class Client:
    """Makes the connections of a probe.

    Args:
        target: Where to.
        server_name: Asked for (SNI); None: none.
        expected: Name or address that the certificate should be for.
        ca_certs: PEM file of authorities; None: those of the system.
        timeout: Seconds for connect and handshake of each.

    Raises:
        ConfigurationError: The name or the file cannot be used.
    """

    def __init__(
        self, target: Target, *, server_name: str | None, expected: str, ca_certs: Path | None, timeout: float
    ) -> None:
        self._target = target
        self._server_name = wire_name(server_name) if server_name else None
        self._expected = expected
        self._ca_certs = ca_certs
        self._timeout = timeout
        engine_shim.attach()
        _trust(SSL.Context(SSL.TLS_CLIENT_METHOD), ca_certs)  # tells what is wrong before there is a connection

    def connect(self, offer: Offer, resumed: Seen | None = None, *, until: float | None = None) -> Seen:
        """Do one handshake, and say goodbye.

        Args:
            offer: What is offered.
            resumed: What to resume; None: a full handshake.
            until: When to give up, at the latest, by time.monotonic().

        Raises:
            NotOfferedError: This OpenSSL cannot offer it.
            RefusedError: The server has refused.
            UnreachableError: Nobody listens.
        """
        context = self._context(offer) if resumed is None else resumed.context
        deadline = min(time.monotonic() + self._timeout, until or float("inf"))
        with self._socket(deadline) as sock:
            connection = self._connection(context, sock, offer, resumed)
            tunnel = Tunnel(connection)
            try:
                start = time.monotonic()
                _run(tunnel, sock, deadline)
                seconds = time.monotonic() - start
                _say_goodbye(tunnel, sock, min(deadline, time.monotonic() + _GOODBYE))
                return _look(context, connection, tunnel, seconds, verified=offer.verified)
            finally:
                tunnel.close()

    def _context(self, offer: Offer) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        try:
            context.set_min_proto_version(_VERSIONS[offer.version])
            context.set_max_proto_version(_VERSIONS[offer.version])
            context.set_cipher_list(":".join((*offer.ciphers, _ANY_LEVEL)).encode())
            if offer.groups:
                engine_shim.set_groups(context, ":".join(offer.groups))
        except (SSL.Error, engine_shim.ShimError) as error:
            raise NotOfferedError("this OpenSSL cannot offer it") from error
        _openssl.SSL_CTX_set_ciphersuites(context._context, ":".join(offer.suites).encode())  # noqa: SLF001 - public from pyOpenSSL 25.2 on
        context.set_options(_LEGACY_SERVER_CONNECT | (0 if offer.tickets else SSL.OP_NO_TICKET))
        if offer.alpn:
            context.set_alpn_protos([name.encode() for name in offer.alpn])
        context.set_verify(SSL.VERIFY_NONE)
        peer.count_sessions(context)
        if offer.verified:
            _trust(context, self._ca_certs)
            expect_name(context, self._expected)
        else:
            engine_shim.believe_certificates(context)
        return context

    def _connection(
        self, context: SSL.Context, sock: socket.socket, offer: Offer, resumed: Seen | None
    ) -> SSL.Connection:
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        if offer.verified:
            peer.ask_for_staple(connection)
        if resumed is not None and resumed.session is not None:
            connection.set_session(resumed.session)
        return connection

    def _socket(self, deadline: float) -> socket.socket:
        sock = socket.socket(self._target.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            sock.connect(self._target.address)
        except TimeoutError as error:
            sock.close()
            raise UnreachableError(TIMEOUT) from error
        except OSError as error:
            sock.close()
            raise UnreachableError(kind_of_system_error(error.errno or 0)) from error
        sock.setblocking(False)
        return sock


def suites_known() -> tuple[str, ...]:
    """Return all suites up to TLS 1.2 that this OpenSSL can offer, in its order."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(f"ALL:COMPLEMENTOFALL:{_ANY_LEVEL}".encode())
    listed = SSL.Connection(context, None).get_cipher_list()
    return tuple(name for name in listed if not name.startswith("TLS_"))


def groups_known() -> tuple[str, ...]:
    """Return those of `GROUPS` that this OpenSSL can offer."""
    return tuple(name for name in GROUPS if _can_offer(name))


def _can_offer(group: str) -> bool:
    try:
        engine_shim.set_groups(SSL.Context(SSL.TLS_CLIENT_METHOD), group)
    except engine_shim.ShimError:
        return False
    return True


def _trust(context: SSL.Context, ca_certs: Path | None) -> None:
    if ca_certs is None:
        context.set_default_verify_paths()
        return
    try:
        context.load_verify_locations(str(ca_certs))
    except SSL.Error as error:
        raise ConfigurationError(
            f"no certificate can be read from {ca_certs}: give a PEM file with --ssl-ca-certs"
        ) from error


def _run(tunnel: Tunnel, sock: socket.socket, deadline: float) -> None:
    while (status := tunnel.handshake()) is not Status.DONE:
        if status not in (Status.WANT_READ, Status.WANT_WRITE):
            _refuse(tunnel, status)
        if not _wait(sock, status, deadline):
            raise RefusedError(TIMEOUT)


def _refuse(tunnel: Tunnel, status: Status) -> None:
    reason = tunnel.failure(status)
    if any(words in reason for words in _NOTHING_TO_OFFER):
        raise NotOfferedError("this OpenSSL cannot offer it")
    raise RefusedError(reason)


def _say_goodbye(tunnel: Tunnel, sock: socket.socket, deadline: float) -> None:
    """Read to the end: tickets of TLS 1.3 come after the handshake."""
    tunnel.shutdown()
    buffer = bytearray(1 << 14)
    while (status := tunnel.read_into(buffer)) in (Status.DONE, Status.WANT_READ, Status.WANT_WRITE):
        if time.monotonic() >= deadline or (status is not Status.DONE and not _wait(sock, status, deadline)):
            return


def _wait(sock: socket.socket, status: Status, deadline: float) -> bool:
    left = max(deadline - time.monotonic(), 0)
    wanted = select.POLLOUT if status is Status.WANT_WRITE else select.POLLIN
    poll = select.poll()
    poll.register(sock, wanted)
    return left > 0 and bool(poll.poll(left * 1000))


def _look(context: SSL.Context, connection: SSL.Connection, tunnel: Tunnel, seconds: float, *, verified: bool) -> Seen:
    sent = (connection.get_peer_cert_chain() or ()) if verified else ()
    return Seen(
        settled=tunnel.settled(),
        seconds=seconds,
        certificates=tuple(one.to_cryptography() for one in sent),
        verified=peer.verification(connection),
        staple=peer.staple(connection) if verified else b"",
        is_safe=peer.renegotiates_securely(connection),
        has_ticket=peer.has_ticket(connection),
        sessions=peer.sessions_seen(context),
        session=tunnel.session,
        context=context,
    )
