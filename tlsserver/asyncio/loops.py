"""Event loops whose ``ssl=`` takes our contexts, for programs that call the loop themselves or through a framework."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from tlsserver.asyncio.client import create_connection, create_unix_connection
from tlsserver.asyncio.contexts import is_ours
from tlsserver.asyncio.home import home_of
from tlsserver.asyncio.listen import create_server, create_unix_server
from tlsserver.asyncio.upgrade import connect_accepted_socket, start_tls

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["loop_factory", "new_event_loop", "patch_loop"]

AnyLoop = TypeVar("AnyLoop", bound=asyncio.AbstractEventLoop)

_OURS: dict[str, Callable[..., Any]] = {
    "create_server": create_server,
    "create_unix_server": create_unix_server,
    "create_connection": create_connection,
    "create_unix_connection": create_unix_connection,
    "connect_accepted_socket": connect_accepted_socket,
    "start_tls": start_tls,
}
# Where start_tls has the context: behind transport and protocol.
_START_TLS_CONTEXT = 2


def patch_loop(loop: AnyLoop) -> AnyLoop:
    """Let a loop's own methods take our contexts; any other ``ssl=`` goes to them as before.

    Args:
        loop: A selector loop of asyncio, or uvloop's; its methods are replaced on this one object. Idempotent.

    Returns:
        The same loop.

    Raises:
        ConfigurationError: It cannot be used: it watches no descriptors, or takes no attributes.
    """
    home_of(loop)
    for name, ours in _OURS.items():
        method = getattr(loop, name)
        if not hasattr(method, "original"):
            setattr(loop, name, _either(loop, ours, method))
    return loop


def _either(loop: asyncio.AbstractEventLoop, ours: Callable[..., Any], original: Callable[..., Any]) -> Any:  # noqa: ANN401 - a function with an attribute
    @functools.wraps(original)
    async def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the loop's own takes
        if is_ours(_context_of(args, named)):
            return await ours(loop, *args, **named)
        return await original(*args, **named)

    call.original = original  # type: ignore[attr-defined]
    return call


def _context_of(args: tuple[Any, ...], named: dict[str, Any]) -> object:
    if "ssl" in named:
        return named["ssl"]
    if "sslcontext" in named:
        return named["sslcontext"]
    return args[_START_TLS_CONTEXT] if len(args) > _START_TLS_CONTEXT else None


def loop_factory(
    base: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes loops whose ``ssl=`` takes our contexts: for `asyncio.Runner` and ``asyncio.run``.

    Args:
        base: Makes a plain one, such as ``uvloop.new_event_loop``; None: asyncio's.
    """

    def make() -> asyncio.AbstractEventLoop:
        return patch_loop(asyncio.SelectorEventLoop() if base is None else base())

    return make


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make a loop of asyncio whose ``ssl=`` takes our contexts: ``uvicorn --loop tlsserver.asyncio:new_event_loop``."""
    return loop_factory()()
