"""Contexts whose X25519 key exchanges begin with key pairs that were made ahead of need, eight at a time.

A server's share of a TLS handshake begins with a fresh X25519 key pair (RFC 7748). The lanes of AVX-512 compute eight
in the time of one, so the first handshake of eight makes them all and the other seven find theirs ready. Each is used
once. Nothing but the Contexts made here knows of it: docs/key-exchange.md.
"""

from __future__ import annotations

from OpenSSL import SSL

from engine_shim.linkage import attach
from engine_shim.native import check, context_address, ffi, lib

__all__ = ["maybe_context", "why_unavailable"]


def why_unavailable() -> str | None:
    """Say why :func:`maybe_context` gives none now; None: it gives one.

    The reasons are the CPU's (no AVX-512 IFMA), the build's, or the process's: with a provider beside OpenSSL's own in
    the default library context, or with a default property query (EVP_set_default_properties(3)), handshakes have to
    go there, so they are left as they are.

    Raises:
        LinkageError: The OpenSSL of pyOpenSSL cannot be reached.
    """
    attach()
    reason = lib.kx_unavailable()
    return None if reason == ffi.NULL else str(ffi.string(reason).decode())


def maybe_context(method: int) -> SSL.Context | None:
    """Make a pyOpenSSL Context like ``SSL.Context(method)`` whose X25519 key pairs are made ahead of need.

    It is to be used like any other one: certificates, keys and settings as usual. Its SSL_CTX lives in a library
    context (OSSL_LIB_CTX(3)) with OpenSSL's ``default`` provider and one of the shim's.

    Args:
        method: As for ``SSL.Context``, e.g. ``SSL.TLS_SERVER_METHOD``.

    Returns:
        The Context; None where there is none to be had (see :func:`why_unavailable`): make an ordinary one.

    Raises:
        LinkageError: The OpenSSL of pyOpenSSL cannot be reached.
        ShimError: OpenSSL refused to make it.
    """
    if why_unavailable() is not None:
        return None
    context = SSL.Context(method)  # sets itself up as this pyOpenSSL does; then its SSL_CTX is another one
    made = ffi.new("void **")
    check(lib.kx_context_new(context_address(context), made), "key exchange")
    context._context = _owned(made[0])  # noqa: SLF001 - as above
    return context


def _owned(address: object) -> object:
    """Hand an SSL_CTX to pyOpenSSL's cffi, to be freed as that frees its own."""
    from OpenSSL._util import ffi as theirs  # noqa: PLC0415 - only here, and pyOpenSSL has no public way
    from OpenSSL._util import lib as their_lib  # noqa: PLC0415 - as above

    raw = theirs.cast("SSL_CTX *", int(ffi.cast("uintptr_t", address)))
    return theirs.gc(raw, their_lib.SSL_CTX_free)
