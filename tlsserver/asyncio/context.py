"""An `ssl.SSLContext` in front of `tlsserver.TLSContext` and `tlsserver.ClientContext`, for frameworks of asyncio.

It is configured as the standard library's is, and used by the loops and functions of `tlsserver.asyncio` alone.
`docs/asyncio-contexts.md` says what each name does, and what is refused.
"""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.changing import told_as_ssl_does
from tlsserver.asyncio.identities import read_chain
from tlsserver.asyncio.negotiation import Negotiation
from tlsserver.asyncio.plain import ContextError
from tlsserver.asyncio.refused import Refused
from tlsserver.asyncio.verification import Verification
from tlsserver.client_context import ClientContext
from tlsserver.context import TLSContext
from tlsserver.policy import suites

if TYPE_CHECKING:
    import os

    from typing_extensions import Self

    from engine_shim import Key
    from tlsserver.asyncio.asked import Chain
    from tlsserver.asyncio.identities import Password

__all__ = ["SSLContext", "create_default_context"]

# x509_vfy.h: what ssl.create_default_context() adds, VERIFY_X509_PARTIAL_CHAIN and VERIFY_X509_STRICT.
_DEFAULT_FLAGS = 0x80000 | 0x20 if sys.version_info >= (3, 13) else 0


class SSLContext(Verification, Negotiation, Refused):
    """TLS for the servers and clients of `tlsserver.asyncio`, with the interface of `ssl.SSLContext`.

    Any thread may change it; a change holds for new connections, and one that cannot work changes nothing.

    Args:
        protocol: `ssl.PROTOCOL_TLS_SERVER`, `ssl.PROTOCOL_TLS_CLIENT`, or `ssl.PROTOCOL_TLS` for both.
        engine: Performs private keys that are given by path; None: ``offload`` says who does.
        offload: ``"auto"``: what pays for the key on this machine, which is measured when it is loaded; ``"threads"``;
            ``"batch"``; ``"off"``: OpenSSL performs it on the loop's thread.
        offload_threads: Of the engine that ``offload`` makes; None: what suits. 0 with ``"batch"``: the loop's own.
        options: More of `tlsserver.policy.settings.ContextSettings`, such as ``ticket_keys``, ``certificates``,
            ``on_client_hello``, ``client_certificates``, ``ocsp_staple``, ``profile``, ``groups``.

    Raises:
        ConfigurationError: The protocol or ``offload`` is another one.
        TypeError: There is no such option.
    """

    def load_cert_chain(
        self,
        certfile: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        keyfile: Key | str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        password: Password = None,
    ) -> None:
        """Load a certificate and its key; again, to renew it, also while connections are served.

        Of each kind of key there is one, as in OpenSSL: another one takes its place.

        Args:
            certfile: PEM file: the certificate, then its chain.
            keyfile: PEM file of the key, or an `engine_shim.Key` of any engine; None: the key is in ``certfile``.
            password: Of the key's file; or who tells it, asked only if it is encrypted.

        Raises:
            OSError: A file cannot be read.
            ssl.SSLError: What is in it cannot be used. Nothing has changed then.
            TypeError: An argument is of another type.
        """
        with self._lock:
            if self._is_given:
                self._reload_given(certfile, keyfile, password)
                return
            chain = read_chain(certfile, keyfile, password, self._engines)
            self._check(chain)
            kept = {one.kind: one for one in self._asked.chains}
            self._change(chains=tuple({**kept, chain.kind: chain}.values()))

    def _check(self, chain: Chain) -> None:
        """Raise what each handshake would fail with, such as a key that is too weak for the security level."""
        context = self._try(suites.apply)
        with told_as_ssl_does():
            chain.identity.check(context)

    def _reload_given(self, certfile: Any, keyfile: Any, password: Password) -> None:  # noqa: ANN401 - as above
        if self._server is None:
            raise ContextError("the context was made of a ClientContext, which is what it is: make another one")
        chain = read_chain(certfile, keyfile, password, self._engines)
        with told_as_ssl_does():
            self._server = self._server.replace(certificate=chain.file, key=chain.identity)

    @classmethod
    def from_context(cls, context: TLSContext | ClientContext) -> Self:
        """Put a context of tlsserver where frameworks want one of Python's ssl.

        Its settings are those of the context; of the methods that change them only `load_cert_chain` works.

        Raises:
            TypeError: It is no context of tlsserver.
        """
        if isinstance(context, TLSContext):
            made = cls(ssl.PROTOCOL_TLS_SERVER)
            made._server = context
        elif isinstance(context, ClientContext):
            made = cls(ssl.PROTOCOL_TLS_CLIENT)
            made._client = context
        else:
            raise TypeError(f"from_context() takes a TLSContext or a ClientContext, not {type(context).__name__}")
        made._is_given = True
        return made

    def __repr__(self) -> str:
        side = "client" if self._protocol == ssl.PROTOCOL_TLS_CLIENT else "server"
        return f"<tlsserver.asyncio.SSLContext {side} of {len(self._asked.chains)} certificates>"


def create_default_context(
    purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
    *,
    cafile: str | os.PathLike[str] | None = None,
    capath: str | os.PathLike[str] | None = None,
    cadata: str | bytes | None = None,
    **options: Any,  # noqa: ANN401 - those of SSLContext
) -> SSLContext:
    """Make a context as `ssl.create_default_context` does; SSLKEYLOGFILE is not looked at.

    Args:
        purpose: `ssl.Purpose.SERVER_AUTH`: for clients, who verify the server; `ssl.Purpose.CLIENT_AUTH`: for servers.
        cafile: Whom to trust, as the next two; none of them: clients trust the system's authorities.
        capath: See `SSLContext.load_verify_locations`.
        cadata: See there.
        options: Of `SSLContext`.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: There is no certificate in it.
        TypeError: It is no purpose, or there is no such option.
    """
    protocols = {ssl.Purpose.SERVER_AUTH: ssl.PROTOCOL_TLS_CLIENT, ssl.Purpose.CLIENT_AUTH: ssl.PROTOCOL_TLS_SERVER}
    if purpose not in protocols:
        raise TypeError(f"purpose is {purpose!r}: give ssl.Purpose.SERVER_AUTH or ssl.Purpose.CLIENT_AUTH")
    context = SSLContext(protocols[purpose], **options)
    if _DEFAULT_FLAGS and options.get("client_certificates") is None:
        context.verify_flags |= _DEFAULT_FLAGS
    if cafile or capath or cadata:
        context.load_verify_locations(cafile, capath, cadata)
    elif purpose is ssl.Purpose.SERVER_AUTH:
        context.load_default_certs(purpose)
    return context
