"""Contexts with key pairs made ahead, and what a test needs to see of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import key_exchange
from engine_shim.native import address_of, ffi
from support.groups import set_groups
from support.pair import client_context

if TYPE_CHECKING:
    from support.certificates import Identity


def ahead_context(method: int = SSL.TLS_SERVER_METHOD) -> SSL.Context:
    """Make a Context with key pairs made ahead; the test is skipped where there is none."""
    context = key_exchange.maybe_context(method)
    assert context is not None
    return context


def with_identity(context: SSL.Context, identity: Identity) -> SSL.Context:
    """Give a Context a certificate and its key, which stays with OpenSSL."""
    context.use_certificate_chain_file(str(identity.cert))
    context.use_privatekey_file(str(identity.key))
    return context


def demand_certificate(context: SSL.Context, identity: Identity) -> SSL.Context:
    """Let a server's Context refuse clients without a certificate of the tests' authority."""
    context.load_verify_locations(str(identity.ca))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
    return context


def x25519_client(identity: Identity, version: str | None = None) -> SSL.Context:
    """Make a client's Context that wants X25519; in TLS 1.2 the curves of ECDSA certificates are groups as well."""
    client = client_context(identity, version)
    assert set_groups(client, "X25519", "P-256", "P-384", "P-521")
    return client


def used() -> int:
    """Count the pairs that key exchanges of this process have taken."""
    return engine_shim.counters().x25519_used


def address(context: SSL.Context) -> int:
    """Give the address of the SSL_CTX."""
    return int(ffi.cast("uintptr_t", address_of(context._context)))
