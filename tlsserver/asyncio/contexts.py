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

__all__ = ["AnyContext", "client_source", "is_ours", "server_source"]

AnyContext = SSLContext | TLSContext | ClientContext


def is_ours(context: object) -> TypeIs[AnyContext]:
    """Return whether we make the TLS of it; if not, the standard library does."""
    return isinstance(context, (SSLContext, TLSContext, ClientContext))


def server_source(context: Any) -> Callable[[], ContextLike]:  # noqa: ANN401 - whatever a user gives
    """Return what tells the context of the next accepted connection.

    Raises:
        TypeError: It cannot accept any.
    """
    if isinstance(context, SSLContext):
        return context.server_context
    if isinstance(context, TLSContext):
        return lambda: context
    raise TypeError(f"ssl is {_named(context)}, which cannot accept connections: give an SSLContext or a TLSContext")


def client_source(context: Any) -> Callable[[], ContextLike]:  # noqa: ANN401 - whatever a user gives
    """Return what tells the context of the next connection that is made.

    Raises:
        TypeError: It cannot make any.
    """
    if isinstance(context, SSLContext):
        return context.client_context
    if isinstance(context, ClientContext):
        return lambda: context
    raise TypeError(f"ssl is {_named(context)}, which cannot make connections: give an SSLContext or a ClientContext")


def _named(context: object) -> str:
    return f"a {type(context).__module__}.{type(context).__qualname__}"
