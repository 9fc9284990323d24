"""What is looked at when clients with a certificate come back, and the policy hook.

The last part, because others may have switched on what it cannot use: OpenSSL asks nobody about the sessions of its own
cache, which would resume when the client's certificate has expired, and whatever the hook thinks of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import questions

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Look at sessions, and let handshakes ask, where there is a hook; who has no ticket has no session then."""
    asked = settings.client_certificates
    if asked is None:
        return
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if asked.on_verified is None:
        questions.ignore_expired_sessions(context)
    else:
        questions.ask_about_clients(context)
