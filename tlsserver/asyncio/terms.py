"""What the arguments of asyncio's functions come to: a context of ours, and the limits of its connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from tlsserver.asyncio.contexts import is_ours, source_of
from tlsserver.config import ServerConfig
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tlsserver.asyncio.contexts import AnyContext

__all__ = ["Limits", "Terms", "refuse_unknown", "terms_of"]

# What runs on asyncio's loops decides for itself how long its connections may be idle.
_DEFAULT = ServerConfig(timeout_idle=None)


class Limits(TypedDict, total=False):
    """Arguments of every function here.

    Attributes:
        ssl_handshake_timeout: Seconds to the end of the handshake, parked time included; None: the config's (10).
        ssl_shutdown_timeout: Seconds to wait for the peer's close_notify after ours; None: the config's (5).
        config: Further limits, such as ``max_handshakes``, upon which the others are laid; None: the defaults, without
            a limit to idling.
    """

    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    config: ServerConfig | None


class Terms(NamedTuple):
    """What connections are made with.

    Attributes:
        context: As the user gave it.
        config: Limits and deadlines.
    """

    context: AnyContext
    config: ServerConfig


def terms_of(context: object, limits: Limits, *, server_side: bool, backlog: int | None = None) -> Terms:
    """Check what was given as ``ssl=``, and lay asyncio's arguments upon the limits.

    Args:
        context: What was given.
        limits: asyncio's arguments.
        server_side: Whether it is to accept connections, or to make them.
        backlog: Of listen(2); None: the config's.

    Raises:
        TypeError: The context is not ours, or not for that side; or there is no such argument.
        ValueError: A limit cannot work.
    """
    if not is_ours(context):
        kind = f"{type(context).__module__}.{type(context).__qualname__}"
        raise TypeError(
            f"ssl is a {kind}: give a tlsserver.asyncio.SSLContext, a tlsserver.TLSContext or a tlsserver.ClientContext"
        )
    source_of(context, server_side=server_side)
    refuse_unknown(limits, Limits.__annotations__)
    named: dict[str, Any] = {
        "timeout_handshake": limits.get("ssl_handshake_timeout"),
        "timeout_shutdown": limits.get("ssl_shutdown_timeout"),
        "backlog": backlog,
    }
    config = limits.get("config") or _DEFAULT
    if config.async_jobs is not None:
        raise ConfigurationError(
            "async_jobs is a thread's, not a server's: call engine_shim.init_thread() before the loop runs"
        )
    given = {name: value for name, value in named.items() if value is not None}
    return Terms(context, replace(config, **given))


def refuse_unknown(given: Any, known: Any) -> None:  # noqa: ANN401 - arguments, and their names
    """Refuse what Python itself would, if the arguments were written out.

    Raises:
        TypeError: There is no such argument.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
