"""Runs the application of `tlsserver serve MODULE:ATTRIBUTE`: uvicorn, on our loop, with the context of `serve`.

What differs from uvicorn's own command: a signal that was heeded ends with exit code 0; the second one, SIGTERM as well
as SIGINT, ends at once; what is open when the time is over is closed before the loop is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import threading
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE

import engine_shim
from tlsserver.asyncio import SSLContext
from tlsserver.cli.applications import INTERFACES
from tlsserver.config import ServerConfig
from tlsserver.errors import ConfigurationError
from tlsserver.integrations.asgi import wsgi
from tlsserver.integrations.uvicorn import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from socket import socket

    from tlsserver.asyncio import Server
    from tlsserver.cli.applications import Application
    from tlsserver.context import TLSContext
    from tlsserver.reload import Dates
    from tlsserver.session import ContextLike

__all__ = ["AppServer", "ServedContext"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What an option's value needs, where that does not come with the extra.
_MODULES = {
    "loop": {"uvloop": "uvloop"},
    "http": {"httptools": "httptools"},
    "ws": {"websockets": "websockets", "websockets-sansio": "websockets", "wsproto": "wsproto"},
}

# The options that are uvicorn's, under its names.
_SAME = (
    *("loop", "http", "ws", "lifespan", "access_log", "proxy_headers", "forwarded_allow_ips", "root_path"),
    *("limit_concurrency", "limit_max_requests", "backlog", "timeout_keep_alive", "timeout_graceful_shutdown"),
)


class ServedContext(SSLContext):
    """The context of `tlsserver serve`, which is swapped when its files have changed. Any thread."""

    @property
    def current(self) -> TLSContext:
        """What new connections begin with."""
        return self._current

    @current.setter
    def current(self, context: TLSContext) -> None:
        self._current = context

    def server_context(self) -> TLSContext:
        """Return what the next connection begins with."""
        return self._current


class _Dates:
    """What `tlsserver.reload.Dates` asks for, of one context."""

    def __init__(self, context: TLSContext) -> None:
        self.certificate_expires = context.expires
        self.ocsp_expires = context.ocsp_expires


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
    """uvicorn's server, as `tlsserver serve` starts, reloads and stops it.

    Attributes:
        interface: What the application speaks, in words.
    """

    def __init__(self, application: Application, options: dict[str, Any], context: TLSContext) -> None:
        """Prepare.

        Args:
            application: What to run; a factory is called now.
            options: Of `tlsserver serve`.
            context: Of its first connections.

        Raises:
            ConfigurationError: It is no application, or something is not installed that an option names.
        """
        for name, modules in _MODULES.items():
            _check_installed(name, options[name], modules)
        app, interface = application.make()
        self.interface = INTERFACES[interface]
        self._context = ServedContext.from_context(context)
        self._context.current = context
        super().__init__(_config(app, interface, options, self._context))
        self._on_started: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: int | None = options["async_jobs"]

    def serve_on(self, listening: socket, *, started: Callable[[], object]) -> int:
        """Serve on this thread until a signal comes, or the application ends.

        Args:
            listening: A listening socket.
            started: Called once, when clients can connect and signals are heeded.

        Returns:
            The exit code: not 0 if the application cannot be started.

        Raises:
            engine_shim.ShimError: This thread cannot have the jobs that were asked for.
        """
        self._on_started = started
        if self._jobs is not None:
            engine_shim.init_thread(self._jobs, 0)
        try:
            self.run(sockets=[listening])
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else STARTUP_FAILURE
        return 0 if self.started else STARTUP_FAILURE

    def reload(self, make: Callable[[], ContextLike] | None = None, /) -> None:
        """Use another context for new connections; open ones keep theirs. Any thread.

        Args:
            make: Makes it, of `tlsserver.TLSContext`; None: it is that of now, of files that are read anew.

        Raises:
            ConfigurationError: A file cannot be used; nothing has changed.
            engine_shim.ShimError: The key cannot be used; nothing has changed.
        """
        self._context.current = cast("TLSContext", (make or self._context.current.replace)())

    def context_files(self) -> tuple[str | Path, ...]:
        """Return the files that the context is made of."""
        return self._context.current.files

    def statistics(self) -> Dates:
        """Return when the context's certificates are over."""
        return _Dates(self._context.current)

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
        """Heed the signals while the block runs; they are not raised anew behind it, because they were heeded.

        On another thread than the main one it does nothing: only the main thread gets signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401, ARG002 - uvicorn's
        """Stop; at the second call at once. May interrupt anything, so it only passes the wish on.

        The third ends the process: an application that holds up the loop never hears of a wish.
        """
        if not self.should_exit:
            self.should_exit = True
            return
        if self.force_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.force_exit = True
        if not self.started or self._loop is None:
            raise KeyboardInterrupt  # the application does not come to its start, and nothing is open
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left
            self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for server in cast("list[Server]", self.servers):
            server.abort_clients()


def _asgi3(app: Any) -> Any:  # noqa: ANN401 - an application
    """Give it exactly its arguments: uvicorn tries without any whether it is a factory, which has been seen to here."""

    def call(scope: Any, receive: Any, send: Any) -> Any:  # noqa: ANN401 - the same
        return app(scope, receive, send)

    return call


def _asgi2(app: Any) -> Any:  # noqa: ANN401 - an application
    """The same of the older interface."""

    def call(scope: Any) -> Any:  # noqa: ANN401 - the same
        return app(scope)

    return call


_SHAPES: dict[str, Any] = {"asgi3": _asgi3, "asgi2": _asgi2, "wsgi": wsgi}


def _config(app: Any, interface: str, options: dict[str, Any], context: ServedContext) -> Config:  # noqa: ANN401 - an application
    """Return uvicorn's settings."""
    served, interface = _SHAPES[interface](app), "asgi3" if interface == "wsgi" else interface
    limits = ServerConfig(
        timeout_idle=None,  # uvicorn's business
        **{name: options[name] for name in ("max_handshakes", "timeout_handshake", "backlog")},
    )
    return Config(
        served,
        context=context,
        limits=limits,
        interface=interface,
        log_config=None,  # as of all our commands: standard error, in one form
        log_level=options["log_level"].lower(),
        workers=1,  # not what WEB_CONCURRENCY says
        server_header=False,
        **{name: options[name] for name in _SAME},
    )
