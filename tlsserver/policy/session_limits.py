"""How many tickets a client is given, how long a session may be resumed, how many sessions are kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim.handshake_policy import set_num_tickets, set_session_cache
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["LIFETIME_MOST", "TICKETS_MOST", "apply"]

# A ticket is used once and costs some 250 bytes of each full handshake; no client opens more connections at once.
TICKETS_MOST = 32
# RFC 8446, section 4.6.1: seven days.
LIFETIME_MOST = 7 * 24 * 3600
# At 1 KB each, without the client's certificate, that is already 10 GB.
_CACHE_MOST = 10_000_000


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the limits.

    Raises:
        ConfigurationError: One of them is out of its range.
    """
    _check("the number of tickets (num_tickets)", settings.num_tickets, 0, TICKETS_MOST)
    _check("the lifetime of sessions in seconds (session_lifetime)", settings.session_lifetime, 1, LIFETIME_MOST)
    _check("the number of sessions in memory (session_cache_size)", settings.session_cache_size, 0, _CACHE_MOST)
    set_num_tickets(context, settings.num_tickets)
    context.set_timeout(settings.session_lifetime)
    set_session_cache(context, settings.session_cache_size)


def _check(what: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        message = f"{what} is {value!r}: give a whole number from {least} to {most}"
        raise ConfigurationError(message)
