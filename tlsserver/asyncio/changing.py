"""The part of `tlsserver.asyncio.SSLContext` that keeps what was asked for, and makes contexts of it.

Facts
- A context of tlsserver is immutable: a change is another context, which new connections begin with.
- Certificates are renewed from other threads than the loop's, while the loop asks for the context for each connection.
- A setting may need another one first: clients cannot be asked for certificates before there is an authority.

Decision
- Before a context was first asked for, a change is only kept: what it needs may come later. A single value that cannot
  work is refused at once.
- From then on each change makes the new context at once and swaps it in; one that cannot be made raises, and nothing
  has changed: the last good context stays.
- Whoever asks for a context that is there takes no lock.
- Tickets of connections before a change are good after it, unless it decides who may come in.

Trade-off
- A context that is in use is made anew for each of several changes, in about a millisecond each.
"""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import engine_shim
from tlsserver.asyncio.asked import HONOURED_OPTIONS, Asked, version_of
from tlsserver.asyncio.identities import Engines, combined
from tlsserver.asyncio.plain import ContextError, NotSupportedError, PlainlessContext
from tlsserver.client_context import ClientContext
from tlsserver.context import TLSContext
from tlsserver.errors import ConfigurationError
from tlsserver.policy.settings import ClientOptions, ContextOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Engine

__all__ = ["ChangingContext", "told_as_ssl_does"]

_BOTH = (ssl.PROTOCOL_TLS,)
_SERVERS = (*_BOTH, ssl.PROTOCOL_TLS_SERVER)
_CLIENTS = (*_BOTH, ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def told_as_ssl_does() -> Iterator[None]:
    """Make an `ssl.SSLError` of what cannot work.

    Raises:
        ContextError: Something could not.
    """
    try:
        yield
    except ContextError:
        raise
    except (ConfigurationError, engine_shim.ShimError) as error:
        raise ContextError(str(error)) from error


class ChangingContext(PlainlessContext):
    """Keeps what was asked for, and makes contexts of it. Any thread.

    Args:
        protocol: `ssl.PROTOCOL_TLS_SERVER`, `ssl.PROTOCOL_TLS_CLIENT`, or `ssl.PROTOCOL_TLS` for both.
        engine: See `Engines`.
        offload: See `Engines`.
        offload_threads: See `Engines`.
        options: Of `tlsserver.TLSContext` or `tlsserver.ClientContext`.

    Raises:
        ConfigurationError: The protocol is another one.
        TypeError: There is no such option.
    """

    def __init__(
        self,
        protocol: int = ssl.PROTOCOL_TLS_SERVER,
        *,
        engine: Engine | None = None,
        offload: str = "auto",
        offload_threads: int | None = None,
        **options: Any,  # noqa: ANN401 - as their own docstrings have them
    ) -> None:
        _refuse_options(protocol, options)
        self._lock = threading.RLock()
        self._engines = Engines(engine, offload, offload_threads)
        self._protocol = protocol
        self._plain = self._new_plain()
        least, most = (options.pop(name, None) for name in ("min_version", "max_version"))
        self._asked = Asked(
            options,
            minimum=None if least is None else version_of(least),
            maximum=ssl.TLSVersion.MAXIMUM_SUPPORTED if most is None else version_of(most),
            verify_mode=self._plain.verify_mode,
            check_hostname=self._plain.check_hostname,
            verify_flags=int(self._plain.verify_flags),
            flags=int(self._plain.options),
        )
        self._server: TLSContext | None = None
        self._client: ClientContext | None = None
        self._is_given = False

    def _new_plain(self) -> ssl.SSLContext:
        """Make one of Python's own, which says what it would: it never has a key, and never leaves here."""
        is_server = self._protocol == ssl.PROTOCOL_TLS_SERVER
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        if self._protocol in _BOTH:
            plain.check_hostname = False
            plain.verify_mode = ssl.CERT_NONE
        return plain

    def server_context(self) -> TLSContext:
        """Return what the next accepted connection begins with.

        Raises:
            ContextError: It cannot be made: there is no certificate, or settings contradict each other.
        """
        return self._server or self._made_server()

    def client_context(self) -> ClientContext:
        """Return what the next connection that we open begins with.

        Raises:
            ContextError: It cannot be made.
        """
        return self._client or self._made_client()

    def _made_server(self) -> TLSContext:
        with self._lock, told_as_ssl_does():
            if self._server is None:
                self._server = self._build_server()
            return self._server

    def _made_client(self) -> ClientContext:
        with self._lock, told_as_ssl_does():
            if self._client is None:
                self._client = self._build_client()
            return self._client

    def _build_server(self) -> TLSContext:
        asked = self._asked
        if self._protocol not in _SERVERS or (self._is_given and self._server is None):
            raise ContextError("Cannot create a server socket with a PROTOCOL_TLS_CLIENT context")
        if not asked.chains:
            raise ContextError("the context has no certificate: call load_cert_chain(certfile, keyfile) first")
        if asked.check_hostname:
            raise ContextError("check_hostname is for clients: clear it, and look at the client's certificate instead")
        told = {**asked.servers(), "certificate": asked.chains[0].file, "key": combined(asked.chains)}
        if self._server is None:
            made = TLSContext(**told)
        else:
            told.pop("ticket_keys", None)  # those in use go on
            made = self._server.replace(**told)
        if asked.flags & HONOURED_OPTIONS:
            made.pyopenssl.set_options(asked.flags & HONOURED_OPTIONS)
        return made

    def _build_client(self) -> ClientContext:
        asked = self._asked
        if self._protocol not in _CLIENTS or (self._is_given and self._client is None):
            raise ContextError("Cannot create a client socket with a PROTOCOL_TLS_SERVER context")
        told = {name: value for name, value in asked.clients().items() if name not in _SERVERS_ALONE}
        if asked.chains:
            told.update(certificate=asked.chains[0].file, key=combined(asked.chains))
        return ClientContext(**told)

    def _change(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Asked
        """Ask for something else.

        Args:
            changes: Of `Asked`.

        Raises:
            ContextError: A context is in use, and cannot be made anew that way.
        """
        with self._lock:
            self._refuse_if_given()
            before = self._asked
            self._asked = replace(before, **changes)
            try:
                self._swap()
            except BaseException:
                self._asked = before
                raise

    def _change_option(self, name: str, value: object) -> None:
        with self._lock:  # else a change that another thread makes meanwhile would be lost
            self._change(options={**self._asked.options, name: value})

    def _swap(self) -> None:
        with told_as_ssl_does():
            server = self._server and self._build_server()
            client = self._client and self._build_client()
        self._server, self._client = server, client

    def _refuse_if_given(self) -> None:
        if self._is_given:
            raise NotSupportedError(
                "the context was made by from_context(), so it has no settings to change: replace it"
            )

    def close(self) -> None:
        """Close the engines that were made here, after the last connection; those that were given are not."""
        self._engines.close()


_SERVERS_ALONE = frozenset(ContextOptions.__annotations__) - frozenset(ClientOptions.__annotations__)
_OTHERWISE = ("password",)  # which load_cert_chain() takes


def _refuse_options(protocol: int, options: dict[str, Any]) -> None:
    known = ClientOptions if protocol == ssl.PROTOCOL_TLS_CLIENT else ContextOptions
    for name in options:
        if name not in known.__annotations__ or name in _OTHERWISE:
            raise TypeError(f"SSLContext() got an unexpected keyword argument {name!r}")
