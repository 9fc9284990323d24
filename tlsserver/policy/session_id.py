"""Which sessions may resume: only those that were made under the same policy.

Facts
- A session tells what its client had to prove when it was made, and nothing is proved again.
- In TLS 1.2 the suite is the session's: OpenSSL asks whether the client still offers it, not whether the server does.

Decision
- Everything that decides who may come in, and the suites of TLS 1.2, go into the session-id context, and a session that
  was made under another policy is not resumed: the handshake is a full one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from engine_shim.server_context import set_session_context
from tlsserver.policy.suites import ciphers_of

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "policy_digest"]


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the session-id context."""
    set_session_context(context, policy_digest(settings))


def policy_digest(settings: ContextSettings) -> bytes:
    """Return a digest of everything that sessions must not carry elsewhere; equal policies have equal ones.

    Raises:
        ConfigurationError: A file that decides it cannot be used, or a setting cannot work.
    """
    suites = hashlib.sha256(ciphers_of(settings).encode()).digest()
    return hashlib.sha256(suites + _clients(settings)).digest()


def _clients(settings: ContextSettings) -> bytes:
    """Tell which clients may come in."""
    asked, trust = settings.client_certificates, settings.client_trust
    if asked is None or trust is None:
        return b"clients: anybody"
    hook = "" if asked.on_verified is None else ", asked about"
    hook += "" if asked.partial_chains else ", whole chains"
    return f"clients: {asked.mode}, depth {asked.depth}{hook}, flags {asked.verify_flags}: ".encode() + trust.digest()
