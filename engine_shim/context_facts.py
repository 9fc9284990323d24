"""What a Context has come to, where pyOpenSSL has no function in all its releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import context_address, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["security_level", "session_counts"]

# ssl.h, SSL_CTRL_SESS_...: from SSL_CTX_sess_number(3) on; None: of OpenSSL's, and not of Python's.
_FIRST = 20
_COUNTS = (
    *("number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate"),
    *("hits", None, "misses", "timeouts", "cache_full"),
)


def security_level(context: SSL.Context) -> int:
    """Return the security level (SSL_CTX_get_security_level(3)).

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    return int(lib.facts_security_level(context_address(context)))


def session_counts(context: SSL.Context) -> dict[str, int]:
    """Count the handshakes and sessions of a Context, by the names of `ssl.SSLContext.session_stats`.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    address = context_address(context)
    return {
        name: int(lib.facts_session_count(address, number))
        for number, name in enumerate(_COUNTS, _FIRST)
        if name is not None
    }
