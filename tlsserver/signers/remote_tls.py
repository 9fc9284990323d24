"""What goes between a key server and us, plain or in TLS: the only file of the remote signer that touches pyOpenSSL.

A channel is a connected socket as the loop needs it: every call does what can be done now, and says what it waits for.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL
from OpenSSL._util import lib as _openssl

import engine_shim
from engine_shim import AsyncSSL, Key, Status
from engine_shim.base import NativeEngine
from tlsserver.errors import ConfigurationError, PeerError
from tlsserver.policy.files import readable

if TYPE_CHECKING:
    from tlsserver.signers.remote_address import Address

__all__ = ["READ_SIZE", "Channel", "ChannelError", "ClientTLS", "PlainChannel", "TLSChannel", "TLSClient"]

# Bytes. One read's messages are decoded at one go, and the shortest has 12 bytes; a TLS record fits as well.
READ_SIZE = 16 * 1024
_RECORD_SIZE = 16 * 1024  # the most that one has (RFC 8446, 5.1)
_NO_RENEGOTIATION = 0x40000000  # ssl.h: SSL_OP_NO_RENEGOTIATION


class ChannelError(PeerError):
    """The connection has ended. The message says why, in one line."""


@dataclass(frozen=True)
class ClientTLS:
    """What we show a key server, and what it has to show us.

    Attributes:
        certificate: PEM file: our certificate, then its chain.
        key: Of that certificate: a PEM file, or a key in an engine of this process.
        ca: PEM file of the authorities, one of which must have issued the key server's certificate.
        server_name: The name or IP address that the certificate must be for; None: the host of the address.
        password: Of the key's file.
    """

    certificate: str | Path
    key: str | Path | Key
    ca: str | Path
    server_name: str | None = None
    password: str | bytes | None = None

    def __repr__(self) -> str:
        return f"<ClientTLS certificate={self.certificate} ca={self.ca} server_name={self.server_name}>"


class Channel(Protocol):
    """A connected socket. Every call may raise `ChannelError`."""

    def handshake(self) -> int:
        """Go on with it. Returns the events to wait for; 0: it is done; -1: for one of `wait_fds`."""

    def wait_fds(self) -> tuple[int, ...]:
        """List the descriptors of our own key's engine that the handshake waits for."""

    def read(self) -> bytes:
        """Return what has come, at most `READ_SIZE` bytes; nothing: not yet, and `wanted` says what to wait for."""

    def write(self, chunk: bytes) -> int:
        """Send; returns how many bytes were taken. With 0, `wanted` says what to wait for, and then the same is due."""

    @property
    def wanted(self) -> int:
        """The events that the last call waits for."""

    def close(self) -> None:
        """Free it, and close the socket. Nothing is sent."""


class PlainChannel:
    """No TLS: a Unix socket. Its socket does not block, and becomes the channel's."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.wanted = 0

    def handshake(self) -> int:
        """There is none."""
        return 0

    def wait_fds(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    def read(self) -> bytes:
        """See `Channel`."""
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            self.wanted = EVENT_READ
            return b""
        except OSError as error:
            raise ChannelError(f"the connection is lost: {error.strerror}") from error
        if not data:
            raise ChannelError("it has closed the connection")
        return data

    def write(self, chunk: bytes) -> int:
        """See `Channel`."""
        try:
            return self._socket.send(chunk, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            self.wanted = EVENT_WRITE
            return 0
        except OSError as error:
            raise ChannelError(f"the connection is lost: {error.strerror}") from error

    def close(self) -> None:
        """See `Channel`."""
        self._socket.close()


_EVENTS = {Status.WANT_READ: EVENT_READ, Status.WANT_WRITE: EVENT_WRITE}
_ON_WAIT_FDS = -1


class TLSChannel:
    """TLS as a client. Its socket does not block, and becomes the channel's.

    Args:
        sock: Connected.
        context: Of `TLSClient`.
        server_name: To ask for (SNI); None: nothing.

    Raises:
        MemoryError: There is none.
    """

    def __init__(self, sock: socket.socket, context: SSL.Context, server_name: bytes | None) -> None:
        self._socket = sock
        self.wanted = 0
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        if server_name is not None:
            connection.set_tlsext_host_name(server_name)
        self._tls = AsyncSSL(connection, handshake=True)
        self._view = memoryview(bytearray(READ_SIZE + _RECORD_SIZE))

    def handshake(self) -> int:
        """See `Channel`."""
        status = self._tls.handshake()
        if status is Status.DONE:
            return 0
        if status is Status.WANT_ASYNC:
            return _ON_WAIT_FDS
        return self._wait_for(status, "the TLS handshake failed")

    def wait_fds(self) -> tuple[int, ...]:
        """See `Channel`."""
        return self._tls.wait_fds()

    def read(self) -> bytes:
        """See `Channel`."""
        count = 0
        while (status := self._read_record(count)) is Status.DONE:
            count += self._tls.count
            if count > READ_SIZE:
                break
        else:
            self.wanted = _EVENTS.get(status, EVENT_READ)
            if not count:
                self._wait_for(status, "the connection is lost")
        return bytes(self._view[:count])

    def _read_record(self, at: int) -> Status:
        """A record has its own SSL_read(3); what ends the connection comes again with the next one."""
        return self._tls.read_into(self._view[at:])

    def write(self, chunk: bytes) -> int:
        """See `Channel`."""
        status = self._tls.write(chunk)
        if status is Status.DONE:
            return self._tls.count
        self.wanted = self._wait_for(status, "the connection is lost")
        return 0

    def close(self) -> None:
        """See `Channel`."""
        try:
            self._tls.close()
        finally:
            self._socket.close()

    def _wait_for(self, status: Status, what: str) -> int:
        events = _EVENTS.get(status)
        if events is None:
            raise ChannelError(f"{what}: {self._reason(status)}")
        return events

    def _reason(self, status: Status) -> str:
        refused = self._tls.verify_error
        if refused is not None:
            return f"its certificate is refused ({refused})"
        if status is Status.CLOSED or (status is Status.SYSCALL and not self._tls.system_error):
            return "it has closed the connection"
        if status is Status.SYSCALL:
            return os.strerror(self._tls.system_error)
        errors = self._tls.errors()
        return errors[-1].text if errors else status.name


class TLSClient:
    """What the connections to one key server have in common.

    Args:
        tls: The settings.
        address: Of the key server.

    Raises:
        ConfigurationError: A file or the name cannot be used.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
    """

    def __init__(self, tls: ClientTLS, address: Address) -> None:
        expected = tls.server_name or address.host
        if expected is None:
            raise ConfigurationError(
                f"signer {address} speaks TLS on a Unix socket: give the name of its certificate as well"
            )
        engine_shim.attach()
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)  # all that gokeyless speaks
        context.set_options(_NO_RENEGOTIATION)
        # SSL_CTX_set_mode(3): else one SSL_read(3) takes all records that hold no data, however many come.
        _openssl.SSL_CTX_clear_mode(context._context, _openssl.SSL_MODE_AUTO_RETRY)  # noqa: SLF001 - no public way
        context.set_session_cache_mode(0)  # SSL_CTX_set_session_cache_mode(3): none; connections last
        _identify(context, tls)
        _trust(context, tls.ca)
        self._server_name = _expect(context, expected)

    def channel(self, sock: socket.socket) -> TLSChannel:
        """Make the channel of a connected socket, which becomes the channel's."""
        return TLSChannel(sock, self._context, self._server_name)


def _identify(context: SSL.Context, tls: ClientTLS) -> None:
    for what, path in (("client certificate", tls.certificate), ("key", tls.key)):
        if not isinstance(path, Key):
            with readable(what, path):
                Path(path).open("rb").close()  # not its bytes: Python cannot wipe them
    try:
        context.use_certificate_chain_file(str(tls.certificate))
    except SSL.Error as error:
        raise ConfigurationError(f"client certificate {tls.certificate} cannot be used: give a PEM file") from error
    if isinstance(tls.key, Key):
        if not isinstance(tls.key.engine, NativeEngine):
            raise ConfigurationError(
                f"a client's key in engine {tls.key.engine.name} cannot be cancelled: give its file"
            )
        tls.key.use(context)
    else:
        engine_shim.use_plain_key(context, Path(tls.key), tls.password)


def _trust(context: SSL.Context, ca: str | Path) -> None:
    with readable("authorities", ca):
        Path(ca).read_bytes()
    try:
        context.load_verify_locations(str(ca))
    except SSL.Error as error:
        raise ConfigurationError(f"no certificate can be read from {ca}: give a PEM file of authorities") from error
    context.set_verify(SSL.VERIFY_PEER)


def _expect(context: SSL.Context, expected: str) -> bytes | None:
    """Have the name of the certificate verified by OpenSSL (X509_VERIFY_PARAM_set1_host(3))."""
    name: bytes | None = None
    parameters = _openssl.SSL_CTX_get0_param(context._context)  # noqa: SLF001 - no public way
    try:
        packed = ipaddress.ip_address(expected).packed
    except ValueError:
        name = _wire_name(expected)
        done = _openssl.X509_VERIFY_PARAM_set1_host(parameters, name, len(name))
    else:
        done = _openssl.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
    if done != 1:  # else every name would do
        raise ConfigurationError(f"the certificate of a signer cannot be for {expected!r}: give a host's name")
    return name


def _wire_name(name: str) -> bytes:
    try:
        return name.encode("idna")
    except UnicodeError as error:
        raise ConfigurationError(
            f"signer's name {name!r} is no host name: {error}; give that of its certificate"
        ) from error
