"""Settings of a server's Context that C decides by, for a Context that no Connection was made of yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import address_of, check, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["SESSION_CONTEXT_BYTES", "set_session_context"]

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
    address = address_of(context._context)  # noqa: SLF001 - no public way
    check(lib.session_id_set(address, digest), "setting the session-id context")
