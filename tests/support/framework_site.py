"""The application of `support.asgi_app` under servers of others, each on a thread of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn

from support import asgi_app
from support.loop_thread import LoopThread, new_loop
from tlsserver.integrations import hypercorn as our_hypercorn
from tlsserver.integrations import uvicorn as our_uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable

    import hypercorn.config


class Uvicorn(uvicorn.Server):
    """Tells when clients may connect, and stops when it is told to, at once."""

    def __init__(self, config: uvicorn.Config, thread: LoopThread) -> None:
        super().__init__(config)
        self._of = thread

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        self._of.started(self.servers[0].sockets[0].getsockname())

    async def main_loop(self) -> None:
        """As uvicorn's, which looks ten times a second whether it is to end."""
        await self.on_tick(0)
        await self._of.stop.wait()


def uvicorn_site(loop: str = "asyncio", app: Any = asgi_app.app, **options: Any) -> LoopThread:
    """Serve with uvicorn.

    Args:
        loop: One of `support.loop_thread.LOOPS`.
        app: The application.
        options: Of `tlsserver.integrations.uvicorn.Config`.
    """
    config = our_uvicorn.Config(
        app, **{"port": 0, "loop": loop, "log_config": None, "timeout_graceful_shutdown": 20, **options}
    )

    async def program(thread: LoopThread) -> None:
        await Uvicorn(config, thread)._serve()

    return LoopThread(program, config.get_loop_factory())


def hypercorn_site(
    loop: str = "asyncio", app: Any = asgi_app.app, serve: Any = our_hypercorn.serve, **options: Any
) -> LoopThread:
    """Serve with hypercorn.

    Args:
        loop: One of `support.loop_thread.LOOPS`.
        app: The application.
        serve: Ours, or hypercorn's.
        options: Attributes of `tlsserver.integrations.hypercorn.Config`.
    """
    config = our_hypercorn.Config.from_mapping(bind=["127.0.0.1:0"], errorlog=None, **options)

    async def program(thread: LoopThread) -> None:
        _listen_first(config, thread.started)
        await serve(app, config, shutdown_trigger=thread.stop.wait)

    return LoopThread(program, lambda: new_loop(loop))


def _listen_first(config: hypercorn.config.Config, started: Callable[[Any], None]) -> None:
    """Say the port, which hypercorn only logs; whoever connects now waits in the kernel."""
    sockets = config.create_sockets()
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    sockets.secure_sockets[0].listen()
    asyncio.get_running_loop().call_soon(started, sockets.secure_sockets[0].getsockname())
