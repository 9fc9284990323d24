"""Settings of a server's Context that C decides by, for a Context that no Connection was made of yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import check, context_address, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["SESSION_CONTEXT_BYTES", "set_session_context", "set_staple"]

SESSION_CONTEXT_BYTES = 32


def set_session_context(context: SSL.Context, digest: bytes) -> None:
    """Let sessions resume only where the digest is the same (SSL_CTX_set_session_id_context(3)).

    Args:
        context: The server's.
        digest: `SESSION_CONTEXT_BYTES` bytes that differ wherever the clients that may come in differ.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL refuses.
        ValueError: The digest has another length.
    """
    linkage.attach()
    if len(digest) != SESSION_CONTEXT_BYTES:
        message = f"the digest has {len(digest)} bytes, it must have {SESSION_CONTEXT_BYTES}"
        raise ValueError(message)
    address = context_address(context)
    check(lib.session_id_set(address, digest), "setting the session-id context")


# int64_t: later than any clock.
_FOREVER = 2**62


def set_staple(context: SSL.Context, response: bytes, until: float | None) -> None:
    """Send an OCSP response with the Context's certificate, to clients that ask for it (RFC 6066, section 8).

    Args:
        context: The server's, with its certificate.
        response: In DER; it is not looked at.
        until: When to stop, in seconds since 1970; None: never.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: The Context has no certificate.
        ValueError: There is no response.
    """
    linkage.attach()
    if not response:
        message = "there is no OCSP response to send: it is empty"
        raise ValueError(message)
    address = context_address(context)
    end = _FOREVER if until is None else int(until)
    check(lib.staple_set(address, response, len(response), end), "setting the OCSP response")
