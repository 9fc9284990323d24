"""The policy hook for client certificates: the last part, because others may have switched on what it cannot use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import questions

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Let handshakes ask, where there is a hook; sessions of OpenSSL's own cache would resume without asking."""
    asked = settings.client_certificates
    if asked is None:
        return
    if asked.on_verified is None:
        questions.ignore_expired_sessions(context)
        return
    questions.ask_about_clients(context)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
