"""Client certificates: what a server's Context asks for and trusts. Verification is OpenSSL's own, in C.

All are for a Context that no Connection was made of yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import check, context_address, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["CRL_CHECK", "CRL_CHECK_ALL", "ask", "revoke", "set_flags", "trust"]

# x509_vfy.h: X509_V_FLAG_...
CRL_CHECK, CRL_CHECK_ALL = 0x4, 0x8


def ask(context: SSL.Context, *, required: bool, depth: int, partial: bool = False) -> None:
    """Ask clients for a certificate (SSL_CTX_set_verify(3)).

    Args:
        context: The server's.
        required: Whether nobody comes in without one.
        depth: How many intermediate authorities a chain may have.
        partial: Whether a chain may end at whatever is trusted; else it ends at a root (X509_V_FLAG_PARTIAL_CHAIN).

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    lib.clients_ask(context_address(context), required, depth, partial)


def trust(context: SSL.Context, der: bytes, *, named: bool) -> None:
    """Let the clients of an authority in.

    Args:
        context: The server's.
        der: The authority's certificate.
        named: Whether clients are told its name (SSL_CTX_add_client_CA(3)).

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL cannot read it.
    """
    linkage.attach()
    check(lib.clients_trust(context_address(context), der, len(der), named), "certificate of an authority")


def revoke(context: SSL.Context, der: bytes, flags: int) -> None:
    """Look certificates up in CRLs, this one among them (X509_STORE_add_crl(3)).

    Args:
        context: Of client or server.
        der: The CRL.
        flags: Which: `CRL_CHECK` the peer's own, with `CRL_CHECK_ALL` every one of its chain; 0: as the Context has it.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL cannot read it.
    """
    linkage.attach()
    check(lib.clients_revoke(context_address(context), der, len(der), flags), "CRL")


def set_flags(context: SSL.Context, flags: int) -> None:
    """Verify peers' chains with more flags (X509_VERIFY_PARAM_set_flags(3)), beside those that are set.

    Args:
        context: Of client or server.
        flags: OpenSSL's numbers, which are those of `ssl.VerifyFlags` as well.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL refuses them.
    """
    linkage.attach()
    check(lib.clients_flags(context_address(context), flags), f"flags of the verification {flags:#x}")
