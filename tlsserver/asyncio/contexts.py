"""What may be given as ``ssl=``, and which context the next connection gets from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.context import SSLContext
from tlsserver.client_context import ClientContext
from tlsserver.context import TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeIs

    from tlsserver.session import ContextLike

__all__ = ["AnyContext", "is_ours", "source_of"]

AnyContext = SSLContext | TLSContext | ClientContext


def is_ours(context: object) -> TypeIs[AnyContext]:
    """Return whether we make the TLS of it; if not, the standard library does."""
    return isinstance(context, (SSLContext, TLSContext, ClientContext))


def source_of(context: Any, *, server_side: bool) -> Callable[[], ContextLike]:  # noqa: ANN401 - whatever a user gives
    """Return what tells the context of the next connection.

    Args:
        context: What was given.
        server_side: Whether connections are accepted, or made.

    Raises:
        TypeError: It is not for that side.
    """
    if isinstance(context, SSLContext):
        return context.server_context if server_side else context.client_context
    kind, doing = (TLSContext, "accept") if server_side else (ClientContext, "make")
    if isinstance(context, kind):
        return lambda: context
    raise TypeError(
        f"ssl is {_named(context)}, which cannot {doing} connections: give an SSLContext or a {kind.__name__}"
    )


def _named(context: object) -> str:
    return f"a {type(context).__module__}.{type(context).__qualname__}"
