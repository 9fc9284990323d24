"""hypercorn with our TLS, HTTP/2 among it.

One line changes, the import::

    from tlsserver.integrations.hypercorn import Config, serve

    config = Config()
    config.bind, config.certfile, config.keyfile = ["127.0.0.1:8443"], "cert.pem", "key.pem"
    asyncio.run(serve(app, config))

`hypercorn.run.run` takes the settings as well: the loop of each worker is made ready when it asks for the context.
hypercorn's command copies what a module has into settings of its own (``--config file:my_config.py``), so there the
method alone is given::

    bind, certfile, keyfile = ["127.0.0.1:8443"], "cert.pem", "key.pem"
    create_ssl_context = Config.from_mapping(certfile=certfile, keyfile=keyfile).create_ssl_context

With both `tlsserver.integrations.asgi.TLSExtension` around the application is what puts the extension ``tls`` into
requests.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import hypercorn.asyncio
from hypercorn.config import Config as HypercornConfig

from tlsserver.asyncio import Server, SSLContext, patch_loop
from tlsserver.config import ServerConfig
from tlsserver.errors import ConfigurationError
from tlsserver.integrations.asgi import TLSExtension, named

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

__all__ = ["Config", "serve"]


class Config(HypercornConfig):
    """hypercorn's settings; HTTPS is what they always lead to.

    Attributes:
        ssl_context: A `tlsserver.asyncio.SSLContext` that is complete; None: one is made of ``certfile``, ``keyfile``,
            ``keyfile_password``, ``ca_certs``, ``verify_mode``, ``verify_flags``, ``ciphers`` and ``alpn_protocols``.
        ssl_handshake_timeout: Seconds for a handshake, parked time included.
    """

    ssl_context: ssl.SSLContext | None = None
    ssl_handshake_timeout = ServerConfig().timeout_handshake

    @property
    def ssl_enabled(self) -> bool:
        """Whether there is a certificate; the key may be in the same file."""
        return self.ssl_context is not None or self.certfile is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """Make the context, and the running loop ready for it; hypercorn calls this in each worker.

        Raises:
            ConfigurationError: A setting cannot work, or the worker is one of trio.
            ssl.SSLError: A file is not what it should be.
            OSError: It cannot be read.
        """
        if self.ssl_context is None and self.certfile is None:
            return None
        _make_ready(_running_loop(), goodbye=min(self.graceful_timeout, _GOODBYE))
        return self.ssl_context or self._context_of_settings(self.certfile or "")

    def _context_of_settings(self, certfile: str) -> SSLContext:
        made = SSLContext()
        made.set_ciphers(self.ciphers)
        made.set_alpn_protocols(list(self.alpn_protocols))
        made.load_cert_chain(certfile, self.keyfile, self.keyfile_password)
        if self.ca_certs is not None:
            made.load_verify_locations(self.ca_certs)
        if self.verify_mode is not None:
            made.verify_mode = self.verify_mode
        if self.verify_flags is not None:
            made.verify_flags = self.verify_flags
        return made


async def serve(app: Any, config: HypercornConfig, **options: Any) -> None:  # noqa: ANN401 - hypercorn's
    """Serve an application, as `hypercorn.asyncio.serve` does; its requests carry the extension ``tls``.

    Args:
        app: For ASGI, or for WSGI with ``mode="wsgi"``, which has no extensions.
        config: A `Config`.
        options: ``shutdown_trigger`` and ``mode``.
    """
    if options.get("mode") != "wsgi":
        app, options["mode"] = TLSExtension(app), "asgi"
    await hypercorn.asyncio.serve(app, config, **options)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        message = "no loop of asyncio runs: hypercorn's trio workers cannot have our TLS; set worker_class to asyncio"
        raise ConfigurationError(message) from None


_READY = "_tlsserver_hypercorn"


_GOODBYE = 5.0  # seconds, as `tlsserver.ServerConfig` has it
_SHORT = 0.1  # a round trip, for whoever has no grace


def _make_ready(loop: Any, *, goodbye: float) -> None:  # noqa: ANN401 - its method is replaced
    """Let the loop take our context, and tell the tasks of a connection which it is; idempotent.

    Args:
        loop: hypercorn's.
        goodbye: Seconds to wait for a client's close_notify.
    """
    if hasattr(loop, _READY):
        return
    patch_loop(loop)
    create_server: Callable[..., Awaitable[asyncio.AbstractServer]] = loop.create_server

    @functools.wraps(create_server)
    async def create_named(protocol_factory: Any, *args: Any, **kwargs: Any) -> asyncio.AbstractServer:  # noqa: ANN401 - the loop's
        if isinstance(kwargs.get("ssl"), SSLContext):
            kwargs["ssl_shutdown_timeout"] = max(goodbye, _SHORT)
        server = await create_server(named(protocol_factory), *args, **kwargs)
        if isinstance(server, Server):
            server.wait_closed = _at_once  # type: ignore[method-assign]
        return server

    loop.create_server = create_named
    setattr(loop, _READY, True)


async def _at_once() -> None:
    """Do not wait: hypercorn waits for its connections as well, and no longer than `graceful_timeout`."""
