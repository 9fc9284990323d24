"""What a finished handshake has settled, with the interface of `ssl.SSLObject`: what ``get_extra_info`` gives.

The transport owns the connection, so nothing here reads, writes or shakes hands. Facts that OpenSSL still has to be
asked for are asked for once; when the connection is closed before that, they are None, as in the standard library.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NoReturn

from engine_shim import facts
from tlsserver.asyncio.plain import NotSupportedError
from tlsserver.client_certificate import ClientCertificate

if TYPE_CHECKING:
    from engine_shim import AsyncSSL
    from tlsserver.wire import TLSInfo

__all__ = ["SSLObject"]

_Cipher = tuple[str, str, int]
# What is told of a suite is the same for all connections, so it is known when one has asked.
_SUITES: dict[str, _Cipher] = {}


class SSLObject(ssl.SSLObject):
    """The facts of one connection, for the loop's thread.

    Args:
        context: What the user gave for it: an `SSLContext`, or a context of tlsserver itself.
        tls: The connection, after its handshake.
        info: What that has settled.
        chain: The peer's verified certificates in DER, its own first; empty: it has shown none.
        server_side: Whether we are the server.
        server_hostname: The server whom we, as a client, have asked for.
        is_verified: Whether a certificate would have been verified; None: as ``context`` has it now.
    """

    def __init__(
        self,
        context: object,
        tls: AsyncSSL,
        info: TLSInfo,
        chain: tuple[bytes, ...],
        *,
        server_side: bool,
        server_hostname: str | None,
        is_verified: bool | None = None,
    ) -> None:
        # Not the standard library's, which says that it has no public constructor.
        self._context = context
        self._tls = tls
        self._info = info
        self._chain = chain
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._is_verified = server_side or (_verifies(context) if is_verified is None else is_verified)
        self._shared: list[_Cipher] | None = None
        self._sent: tuple[bytes, ...] = ()
        self._binding: bytes | None = None

    @property
    def context(self) -> Any:  # noqa: ANN401 - the standard library's is never None
        """What the connection was made with."""
        return self._context

    @context.setter
    def context(self, _context: object) -> NoReturn:
        raise NotSupportedError("context: a connection keeps the one that it began with")

    @property
    def session(self) -> None:
        """None: sessions are not handed out."""
        return

    @session.setter
    def session(self, _session: object) -> NoReturn:
        raise NotSupportedError("session: it cannot be set after the handshake, and clients resume none")

    @property
    def session_reused(self) -> bool:
        """Whether a session was resumed."""
        return self._info.reused

    @property
    def server_side(self) -> bool:
        """Whether we are the server."""
        return self._server_side

    @property
    def server_hostname(self) -> str | None:
        """The server whom we, as a client, have asked for."""
        return self._server_hostname

    def version(self) -> str | None:
        """Return the version of TLS, such as ``"TLSv1.3"``."""
        return self._info.version or None

    def cipher(self) -> _Cipher | None:
        """Return the suite's name, the version that it is from, and the bits of its secret."""
        name = self._info.cipher
        known = _SUITES.get(name)
        if known is None:
            found = facts.cipher(self._tls)
            if found is not None and found.name == name:
                known = _SUITES[name] = _as_tuple(found)
        return known

    def shared_ciphers(self) -> list[_Cipher] | None:
        """Return the suites that both ends have, in the server's order; None: a client, who does not learn them."""
        if self._shared is None:
            self._shared = [_as_tuple(one) for one in facts.shared_ciphers(self._tls)] or None
        return self._shared

    def compression(self) -> None:
        """Return None: it is never used (CRIME)."""
        return

    def selected_alpn_protocol(self) -> str | None:
        """Return the application protocol agreed upon; None: without ALPN."""
        return self._info.alpn

    def selected_npn_protocol(self) -> None:
        """Return None: NPN is gone."""
        return

    def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: ANN401 - as in typeshed
        """Return the peer's certificate as a dict, or in DER; the dict is empty if the certificate was not verified.

        Returns:
            None: the peer has shown none.
        """
        if not self._chain:
            return None
        if binary_form:
            return self._chain[0]
        return ClientCertificate(self._chain).peercert() if self._is_verified else {}

    def get_verified_chain(self) -> list[bytes]:
        """Return the peer's certificates up to the authority, in DER, its own first."""
        return list(self._chain)

    def get_unverified_chain(self) -> list[bytes]:
        """Return the certificates that the peer has sent, in DER, its own first."""
        if not self._sent:
            self._sent = facts.sent_chain(self._tls)
        # A server is not told the client's own among them.
        own = self._chain[:1] if self._server_side or not self._sent else ()
        return [*own, *self._sent]

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return what binds a login to this connection (RFC 5929).

        Raises:
            ValueError: It is of another type than ``tls-unique``.
        """
        if cb_type != "tls-unique":
            raise ValueError(f"{cb_type} channel binding type not implemented")
        if self._binding is None:
            # The first Finished of the handshake: the client's, and after a resumption the server's (RFC 5929, 3.1).
            ours = self._info.reused == self._server_side
            self._binding = facts.finished(self._tls, peers=not ours) or None
        return self._binding

    def pending(self) -> int:
        """Return how many decrypted bytes wait in OpenSSL; those that wait in the transport are not among them."""
        return facts.pending(self._tls)

    def read(self, len: int = 1024, buffer: Any = None) -> NoReturn:  # noqa: A002, ANN401 - as there
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        del len, buffer
        _refuse("read")

    def write(self, data: object) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        del data
        _refuse("write")

    def do_handshake(self) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        _refuse("do_handshake")

    def unwrap(self) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        _refuse("unwrap")

    def verify_client_post_handshake(self) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(
            "verify_client_post_handshake: clients are asked for certificates in the handshake alone"
        )

    def __repr__(self) -> str:
        side = "server" if self._server_side else "client"
        return f"<tlsserver.asyncio.SSLObject {side} {self._info.version} {self._info.cipher}>"


def _verifies(context: object) -> bool:
    """Tell whether a client verifies its server; a server takes no certificate that it has not verified."""
    if isinstance(context, ssl.SSLContext):
        return context.verify_mode != ssl.CERT_NONE
    return bool(getattr(context, "verify", True))


def _as_tuple(cipher: facts.Cipher) -> _Cipher:
    """The standard library's is no NamedTuple."""
    return cipher.name, cipher.version, cipher.bits


def _refuse(name: str) -> NoReturn:
    raise NotSupportedError(f"{name}: the connection is its transport's: read, write and close there")
