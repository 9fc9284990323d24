"""Which sessions may resume: only those that were made under the same policy.

A session tells what its client had to prove when it was made. So everything that decides who may come in goes into the
session-id context, and a session that was made under another policy is not resumed: the handshake is a full one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from engine_shim.server_context import set_session_context

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "policy_digest"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the session-id context."""
    set_session_context(context, policy_digest(settings))


def policy_digest(settings: ContextSettings) -> bytes:
    """Return a digest of everything that decides which clients may come in; equal policies have equal ones.

    Raises:
        ConfigurationError: A file that decides it cannot be used.
    """
    asked, trust = settings.client_certificates, settings.client_trust
    if asked is None or trust is None:
        return hashlib.sha256(b"clients: anybody").digest()
    hook = "" if asked.on_verified is None else ", asked about"
    rules = f"clients: {asked.mode}, depth {asked.depth}{hook}: ".encode()
    return hashlib.sha256(rules + trust.digest()).digest()
