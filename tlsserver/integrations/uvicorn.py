"""uvicorn with our TLS.

One line changes::

    uvicorn.Server(tlsserver.integrations.uvicorn.Config("app:app", ssl_certfile=..., ssl_keyfile=...)).run()

or, with uvicorn's own `run` and options, workers among them::

    uvicorn.run(
        "app:app",
        loop="tlsserver.asyncio:new_event_loop",
        ssl_context_factory=tlsserver.integrations.uvicorn.ssl_context,
        http="tlsserver.integrations.uvicorn:HTTPProtocol",  # these two for the ASGI extension ``tls``
        ws="tlsserver.integrations.uvicorn:WebSocketProtocol",
        ...
    )
"""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.config import HTTP_PROTOCOLS, WS_PROTOCOLS
from uvicorn.importer import import_from_string

from tlsserver.asyncio import SSLContext, loop_factory
from tlsserver.errors import ConfigurationError
from tlsserver.integrations.asgi import OfConnection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tlsserver.config import ServerConfig

# And HTTPProtocol and WebSocketProtocol, which are made when they are asked for.
__all__ = ["Config", "ssl_context", "with_tls"]

# What `ssl_version` may say; None: no bounds but those of the policy.
_VERSIONS = {
    ssl.PROTOCOL_TLS: None,
    ssl.PROTOCOL_TLS_SERVER: None,
    ssl.PROTOCOL_TLSv1_2: ssl.TLSVersion.TLSv1_2,
}

# uvicorn's default of `ssl_ciphers` for a long time, which leaves TLS 1.2 nothing but CBC with SHA-1.
_NOT_SAID = "TLSv1"


def ssl_context(config: uvicorn.Config, default: Callable[[], ssl.SSLContext] | None = None) -> SSLContext:
    """Make our context of uvicorn's settings: for its ``ssl_context_factory``, also of workers.

    Args:
        config: ``ssl_certfile``, ``ssl_keyfile``, ``ssl_keyfile_password``, ``ssl_version``, ``ssl_cert_reqs``,
            ``ssl_ca_certs`` and ``ssl_ciphers`` are taken.
        default: uvicorn's own way, which is not gone.

    Raises:
        ConfigurationError: There is no certificate, or another setting cannot work.
        ssl.SSLError: A file is not what it should be.
        OSError: It cannot be read.
    """
    del default
    if not config.ssl_certfile:
        message = "uvicorn's settings name no certificate: give ssl_certfile"
        raise ConfigurationError(message)
    made = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password)
    made.verify_mode = ssl.VerifyMode(config.ssl_cert_reqs)
    if config.ssl_ca_certs:
        made.load_verify_locations(config.ssl_ca_certs)
    if config.ssl_ciphers and config.ssl_ciphers != _NOT_SAID:
        made.set_ciphers(config.ssl_ciphers)
    _set_version(made, config.ssl_version)
    # Only after uvicorn has chosen the protocol, which may speak more than one.
    protocols = getattr(getattr(config, "http_protocol_class", None), "alpn_protocols", None)
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def _set_version(context: SSLContext, version: int) -> None:
    if version not in _VERSIONS:
        message = f"ssl_version={version!r} cannot work: TLS below 1.2 is not spoken; leave it out"
        raise ConfigurationError(message)
    only = _VERSIONS[ssl._SSLMethod(version)]  # noqa: SLF001 - the enumeration's name
    if only is not None:
        context.minimum_version = context.maximum_version = only


_WITH_TLS: dict[Any, type[Any]] = {}  # some five classes of uvicorn's


def with_tls(protocol_class: Any) -> type[Any]:  # noqa: ANN401 - uvicorn's classes have no common type
    """Make a protocol class of uvicorn's whose requests carry the extensions of `tlsserver.integrations.asgi`."""
    if protocol_class in _WITH_TLS:
        return _WITH_TLS[protocol_class]

    class WithTLS(protocol_class):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            # Each connection has a protocol of its own, and each protocol asks this attribute for the application. Who
            # has none has handed over to another one by now, as uvicorn's dispatcher of HTTP/2 does.
            holder: Any = self if hasattr(self, "app") else cast("asyncio.Transport", transport).get_protocol()
            holder.app = OfConnection(holder.app, transport)

    WithTLS.__name__ = WithTLS.__qualname__ = f"{protocol_class.__name__}WithTLS"
    _WITH_TLS[protocol_class] = WithTLS
    return WithTLS


def _protocol(name: str, table: dict[str, Any]) -> type[Any] | None:
    found = import_from_string(table.get(name, name))
    return None if found is None else with_tls(found)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of classes that depend on what is installed
    """Make what uvicorn's ``auto`` would choose here: `HTTPProtocol` and `WebSocketProtocol`."""
    tables: dict[str, dict[str, Any]] = {"HTTPProtocol": {**HTTP_PROTOCOLS}, "WebSocketProtocol": {**WS_PROTOCOLS}}
    if name not in tables:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return _protocol("auto", tables[name])


class Config(uvicorn.Config):
    """uvicorn's settings, served by our loop with our TLS; HTTP requests and websockets carry the extension ``tls``."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - uvicorn's
        *,
        context: ssl.SSLContext | None = None,
        limits: ServerConfig | None = None,
        **options: Any,  # noqa: ANN401 - uvicorn's
    ) -> None:
        """Take settings.

        Args:
            app: The application, or where it is.
            context: A `tlsserver.asyncio.SSLContext`; None: one is made of the settings (`ssl_context`).
            limits: Of handshakes and goodbyes, such as ``timeout_handshake``; None: the defaults.
            options: As of `uvicorn.Config`.
        """
        if context is not None:
            options["ssl_context_factory"] = lambda *_: context
        super().__init__(app, **{"ssl_context_factory": ssl_context, **options})
        self._limits = limits

    def load(self) -> None:
        """Load application, protocols and context; uvicorn calls this once in each process that serves."""
        super().load()
        self.http_protocol_class = with_tls(self.http_protocol_class)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = with_tls(self.ws_protocol_class)

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Let the loop that ``loop`` names take our context."""
        make = loop_factory(super().get_loop_factory())
        return make if self._limits is None else lambda: self._limited(make())

    def _limited(self, loop: Any) -> asyncio.AbstractEventLoop:  # noqa: ANN401 - its methods are replaced
        """Give our server its limits, of which uvicorn knows nothing."""
        for name in ("create_server", "create_unix_server"):
            setattr(loop, name, self._with_limits(getattr(loop, name)))
        limited: asyncio.AbstractEventLoop = loop
        return limited

    def _with_limits(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - the loop's
            if named.get("ssl") is not None and named["ssl"] is self.ssl:
                named["config"] = self._limits
            return method(*args, **named)

        return call
