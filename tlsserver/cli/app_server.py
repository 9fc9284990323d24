"""Runs the application of `tlsserver serve MODULE:ATTRIBUTE`: uvicorn, on our loop, with the context of `serve`.

What differs from uvicorn's own command: a signal that was heeded ends with exit code 0; the second one, SIGTERM as well
as SIGINT, ends at once; what is open when the time is over is closed before the loop is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
from typing import TYPE_CHECKING, Any

import uvicorn

from tlsserver.errors import ConfigurationError
from tlsserver.integrations.asgi import wsgi
from tlsserver.integrations.uvicorn import Config

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from socket import socket

    from tlsserver.cli.applications import Application

__all__ = ["AppServer", "config_of"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What an option's value needs, where that does not come with the extra.
_MODULES = {
    "loop": {"uvloop": "uvloop"},
    "http": {"httptools": "httptools"},
    "ws": {"websockets": "websockets", "websockets-sansio": "websockets", "wsproto": "wsproto"},
}


def config_of(application: Application, options: dict[str, Any], context: ssl.SSLContext) -> Config:
    """Return uvicorn's settings for an application.

    Args:
        application: What to run; a factory is called now.
        options: Of `tlsserver serve`.
        context: Of our connections.

    Raises:
        ConfigurationError: It is no application, or something is not installed that an option names.
    """
    for name, modules in _MODULES.items():
        _check_installed(name, options[name], modules)
    app, interface = application.make()
    if interface == "wsgi":
        app, interface = wsgi(app), "asgi3"
    same = ("loop", "http", "ws", "lifespan", "access_log", "proxy_headers", "forwarded_allow_ips", "root_path")
    limits = ("limit_concurrency", "limit_max_requests", "backlog", "timeout_keep_alive", "timeout_graceful_shutdown")
    return Config(
        app,
        context=context,
        interface=interface,
        log_config=None,  # as of all our commands: standard error, in one form
        log_level=options["log_level"].lower(),
        workers=1,  # not what WEB_CONCURRENCY says
        server_header=False,
        **{name: options[name] for name in (*same, *limits)},
    )


def _check_installed(name: str, value: str, modules: dict[str, str]) -> None:
    module = modules.get(value)
    if module is None:
        return
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"--{name} {value} needs {module}, which cannot be imported ({error}): `pip install {module}`, or give "
            "another value"
        ) from error


class AppServer(uvicorn.Server):
    """uvicorn's server, as `tlsserver serve` starts, reloads and stops it."""

    def __init__(self, config: Config, context: ServedContext) -> None:
        """Prepare.

        Args:
            config: uvicorn's settings.
            context: The one that is in them.
        """
        super().__init__(config)
        self._context = context
        self._on_started: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve_on(self, listening: socket, *, started: Callable[[], object]) -> int:
        """Serve on this thread until a signal comes, or the application ends.

        Args:
            listening: A listening socket.
            started: Called once, when clients can connect and signals are heeded.

        Returns:
            The exit code: not 0 if the application cannot be started.
        """
        self._on_started = started
        try:
            self.run(sockets=[listening])
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1
        return 0

    def reload(self, make: Callable[[], ContextLike] | None = None, /) -> None:
        """Use another context for new connections; open ones keep theirs. Any thread.

        Raises:
            ConfigurationError: A file cannot be used; nothing has changed.
            engine_shim.ShimError: The key cannot be used; nothing has changed.
        """
        self._context.reload(make)

    def context_files(self) -> tuple[str | Path, ...]:
        """Return the files that the context is made of."""
        return self._context.server_context().files

    def statistics(self) -> TLSContext:
        """Return what tells when certificates expire."""
        return self._context.server_context()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start the application, and listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Finish what is under way, for as long as the settings say; close the rest."""
        try:
            await super().shutdown(sockets=sockets)
        finally:
            self._abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Heed the signals while the block runs; they are not raised anew behind it, because they were heeded."""
        previous = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401, ARG002 - uvicorn's
        """Stop; at the second call at once. May interrupt anything, so it only passes the wish on."""
        if not self.should_exit:
            self.should_exit = True
            return
        if not self.started or self._loop is None:
            raise KeyboardInterrupt  # the application does not come to its start, and nothing is open
        self.force_exit = True
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()
