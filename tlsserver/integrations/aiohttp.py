"""aiohttp with our TLS: a site like `aiohttp.web.TCPSite`, on any loop.

aiohttp's own sites hand their context to the loop, or, in releases that use aiofastnet where that is installed, to it.
This one goes past both::

    runner = web.AppRunner(app)
    await runner.setup()
    await TLSSite(runner, "127.0.0.1", 8443, ssl_context=context).start()
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.web_runner import BaseSite
from yarl import URL

from tlsserver.asyncio import create_server

if TYPE_CHECKING:
    import socket

    from aiohttp.web_runner import BaseRunner

    from tlsserver.asyncio import SSLContext
    from tlsserver.context import TLSContext

__all__ = ["TLSSite"]

_PORT = 8443  # as of aiohttp's sites with TLS


class TLSSite(BaseSite):
    """Where a runner's application is served over HTTPS."""

    __slots__ = ("_address", "_context", "_options")

    def __init__(
        self,
        runner: BaseRunner,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl_context: SSLContext | TLSContext,
        backlog: int = 128,
        sock: socket.socket | None = None,
        **options: Any,  # noqa: ANN401 - of several types
    ) -> None:
        """Make a site that does not listen yet.

        Args:
            runner: Whose ``setup`` was called.
            host: Address to listen on; None: all of them.
            port: 0: any free one; None: 8443.
            ssl_context: A `tlsserver.asyncio.SSLContext` or a `tlsserver.TLSContext`.
            backlog: Connections that the kernel holds for us.
            sock: Listen on this socket; host and port are its own.
            options: Further ones of `tlsserver.asyncio.create_server`, such as ``reuse_port`` and
                ``ssl_handshake_timeout``.
        """
        super().__init__(runner, backlog=backlog)
        self._context = ssl_context
        self._address: tuple[str | None, int | None] = (host, _PORT if port is None else port)
        self._options = options
        if sock is not None:
            self._address = (None, None)
            self._options = {**options, "sock": sock}

    @property
    def port(self) -> int | None:
        """Where it listens; before it does, what was asked for."""
        found = self._bound()
        return found[1] if isinstance(found, tuple) else self._address[1]

    @property
    def name(self) -> str:
        """The URL of the site; of a Unix socket as aiohttp's sites write it."""
        found = self._bound()
        if isinstance(found, str):
            return f"https://unix:{found}:"
        host = self._address[0] or (found[0] if found else "0.0.0.0")  # noqa: S104 - shown, not bound
        return str(URL.build(scheme="https", host=host, port=self.port))

    def _bound(self) -> Any:  # noqa: ANN401 - its form depends on the family
        sockets = getattr(self._server, "sockets", ())
        return sockets[0].getsockname() if sockets else None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: The address cannot be listened on.
        """
        await super().start()
        factory = self._runner.server
        if factory is None:
            message = "the runner was cleaned up: call runner.setup() before starting the site"
            raise RuntimeError(message)
        host, port = self._address
        loop = asyncio.get_running_loop()
        self._server = await create_server(
            loop, factory, host, port, ssl=self._context, backlog=self._backlog, **self._options
        )
