"""What a server's handshakes are made with: certificate, key, engine and policy, immutable once built.

pyOpenSSL freezes a Context at its first Connection, so a change is a new TLSContext that is swapped in; connections
keep the one that they began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import key_exchange
from engine_shim.base import NativeEngine
from tlsserver import policy
from tlsserver.errors import ConfigurationError
from tlsserver.policy import identity, staple, tickets
from tlsserver.policy.identity import engine_of, reason
from tlsserver.policy.server_names import maybe_server_names
from tlsserver.policy.settings import ContextSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Unpack

    from engine_shim import BaseEngine, Key
    from engine_shim.identity import Identity
    from tlsserver.client_request import ClientCertificateRequest
    from tlsserver.policy.server_names import ServerNames
    from tlsserver.policy.settings import ContextChanges, ContextOptions

__all__ = ["TLSContext"]

# pyOpenSSL's attributes, because OpenSSL has no getter for most of these callbacks. All would run on a job's stack.
_PYTHON_CALLBACKS = {
    "_tlsext_servername_callback": "SNI (set_tlsext_servername_callback)",
    "_alpn_select_callback": "ALPN (set_alpn_select_callback)",
    "_verify_callback": "verification (set_verify with a callback)",
    "_info_callback": "info (set_info_callback)",
    "_keylog_callback": "key log (set_keylog_callback)",
    "_ocsp_callback": "OCSP (set_ocsp_server_callback)",
    "_cookie_generate_helper": "cookie generation (set_cookie_generate_callback)",
    "_cookie_verify_helper": "cookie verification (set_cookie_verify_callback)",
}


class TLSContext:
    """Certificate, key, engine and policy of a server. Immutable once built.

    Args:
        certificate: Path of a PEM file: the server's certificate, then its chain.
        key: A :class:`engine_shim.Key`, whose engine performs it, or the path of a private key that OpenSSL
            performs on the loop's thread; or an `engine_shim.identity.Identity`, which has the certificates as well.
        options: The fields of `tlsserver.policy.settings.ContextSettings`, which says what each is.

    Raises:
        ConfigurationError: A file or a setting cannot work.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
        TypeError: There is no such option.
    """

    __slots__ = (
        "__weakref__",
        "_async_io",
        "_engine",
        "_expires",
        "_ocsp_expires",
        "_pyopenssl",
        "_server_names",
        "_settings",
    )

    def __init__(
        self, certificate: str | Path, key: Key | Identity | str | Path, **options: Unpack[ContextOptions]
    ) -> None:
        settings = tickets.opened(ContextSettings(certificate, key, **options))
        engine_shim.attach()
        context = _make_context(ahead=settings.key_exchange_ahead)
        policy.apply(context, settings)
        # Last: it tries its certificates on the context as it is then.
        names = maybe_server_names(context, settings)
        self._set(context, engine_of(settings), settings, async_io=settings.async_io, names=names)

    def _set(
        self,
        context: SSL.Context,
        engine: BaseEngine | None,
        settings: ContextSettings | None,
        *,
        async_io: bool,
        names: ServerNames | None = None,
    ) -> None:
        self._pyopenssl = context
        self._engine = engine
        self._settings = settings
        self._async_io = async_io
        self._expires = None if settings is None else identity.expires(settings)
        self._ocsp_expires = None if settings is None else staple.expires(settings)
        self._server_names = names

    def replace(self, **changes: Unpack[ContextChanges]) -> TLSContext:
        """Make another context, with some settings changed; files are read anew.

        Args:
            changes: ``certificate``, ``key`` and the options of the constructor.

        Returns:
            A new context, for `tlsserver.Server.swap_context`.

        Raises:
            ConfigurationError: A file or a setting cannot work, or this context was not made of settings.
            engine_shim.ShimError: The key cannot be read or is not the certificate's.
            TypeError: There is no such setting.
        """
        if self._settings is None:
            message = "a context that was made by from_pyopenssl() has no settings to replace: make another one"
            raise ConfigurationError(message)
        return TLSContext(**self._settings.with_changes(changes))

    def keep_up(self, now: float) -> float | None:
        """Do what is due by time, such as new ticket keys; the loop that serves with it calls this.

        Args:
            now: The time of CLOCK_MONOTONIC.

        Returns:
            When to call it again; None: never.
        """
        return None if self._settings is None else tickets.keep_up(self._settings, now)

    @classmethod
    def from_pyopenssl(
        cls, context: SSL.Context, *, engine: BaseEngine | None = None, async_io: bool = False
    ) -> TLSContext:
        """Take over a pyOpenSSL Context as it is; the keys in all its certificate slots go to ``engine``.

        Args:
            context: With certificates and keys, before its first Connection.
            engine: Performs the keys. One of a third party performs those that it has put into the Context itself, so
                nothing is wrapped. None: OpenSSL does, on the loop's thread.
            async_io: Whether reading and writing run in jobs too, for engines that offload ciphers.

        Returns:
            The context. The pyOpenSSL Context must not be changed any more.

        Raises:
            ConfigurationError: It carries Python callbacks, which would run on a job's stack, or no private key.
            engine_shim.ShimError: A key cannot be wrapped.
        """
        engine_shim.attach()
        _refuse_python_callbacks(context)
        if isinstance(engine, NativeEngine):
            _wrap_keys(context, engine)
        elif engine is not None:
            _check_key(context)
        made = cls.__new__(cls)
        made._set(context, engine, None, async_io=async_io)  # noqa: SLF001 - our own, half made
        return made

    @property
    def files(self) -> tuple[str | Path, ...]:
        """What it was read from; nothing after `from_pyopenssl`."""
        return () if self._settings is None else self._settings.files()

    @property
    def expires(self) -> float | None:
        """When the first of its certificates expires, in seconds since 1970; None: unknown (after `from_pyopenssl`)."""
        return self._expires

    @property
    def ocsp_expires(self) -> float | None:
        """When its OCSP response is too old, in seconds since 1970; None: there is none, or it does not say."""
        return self._ocsp_expires

    @property
    def pyopenssl(self) -> SSL.Context:
        """The pyOpenSSL Context that connections are made of."""
        return self._pyopenssl

    @property
    def engine(self) -> BaseEngine | None:
        """Where the private key's operations are performed; None: on the loop's thread, by OpenSSL."""
        return self._engine

    @property
    def offloaded(self) -> bool:
        """Whether handshakes run in jobs, so that an engine, or a question about a client, can pause them."""
        return bool(self.engines) or self._async_io or self._asks or self.on_verified is not None

    @property
    def on_verified(self) -> Callable[[ClientCertificateRequest], object] | None:
        """Who is asked about clients whose certificate is good; None: nobody."""
        asked = None if self._settings is None else self._settings.client_certificates
        return None if asked is None else asked.on_verified

    @property
    def _asks(self) -> bool:
        """Whether certificates come on demand, so that their keys may be in any engine."""
        return self._server_names is not None and self._server_names.on_client_hello is not None

    @property
    def engines(self) -> tuple[BaseEngine, ...]:
        """All engines that perform keys of this context, as far as its certificates are known."""
        own = () if self._engine is None else (self._engine,)
        main = () if self._settings is None else getattr(self._settings.key, "engines", ())
        others = () if self._server_names is None else self._server_names.engines
        return tuple(dict.fromkeys((*own, *main, *others)))

    @property
    def server_names(self) -> ServerNames | None:
        """The certificates for single names, and whom handshakes ask; None: there is one certificate for all."""
        return self._server_names

    @property
    def alpn(self) -> tuple[str, ...] | None:
        """The application protocols that it negotiates; empty: none; None: unknown (after `from_pyopenssl`)."""
        return None if self._settings is None else tuple(self._settings.alpn)

    @property
    def async_io(self) -> bool:
        """Whether reading and writing run in jobs as well."""
        return self._async_io

    def __repr__(self) -> str:
        return f"<TLSContext engine={self._engine.name if self._engine else 'off'}>"


def _make_context(*, ahead: bool) -> SSL.Context:
    made = key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) if ahead else None
    return made or SSL.Context(SSL.TLS_SERVER_METHOD)


def _wrap_keys(context: SSL.Context, engine: NativeEngine) -> None:
    if engine_shim.wrap_context(context, engine) == 0:
        message = "the SSL.Context has no private key to wrap: call use_certificate and use_privatekey before"
        raise ConfigurationError(message)


def _check_key(context: SSL.Context) -> None:
    """A key that is missing, or not the certificate's, would fail every handshake later."""
    try:
        context.check_privatekey()
    except SSL.Error as error:
        message = f"the SSL.Context has no private key for its certificate ({reason(error)}): use the engine's first"
        raise ConfigurationError(message) from error


def _refuse_python_callbacks(context: SSL.Context) -> None:
    found = [name for attribute, name in _PYTHON_CALLBACKS.items() if getattr(context, attribute, None) is not None]
    if found:
        message = f"the SSL.Context has Python callbacks, which would run on a job's stack: remove {', '.join(found)}"
        raise ConfigurationError(message)
