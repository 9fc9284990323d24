"""What a server's Context negotiates, where pyOpenSSL has no function in all its releases.

All are for a Context that no Connection was made of yet, on any one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import check, context_address, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["set_ciphers", "set_ciphersuites", "set_num_tickets", "set_session_cache", "set_signature_algorithms"]


def set_ciphers(context: SSL.Context, suites: str) -> None:
    """Choose the suites of TLS 1.2 (SSL_CTX_set_cipher_list(3)).

    Args:
        context: The server's.
        suites: In the form of ciphers(1). OpenSSL leaves out what it does not know.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL knows none of them.
    """
    check(lib.policy_ciphers(_address(context), suites.encode()), f"cipher list {suites!r}")


def set_ciphersuites(context: SSL.Context, suites: str) -> None:
    """Choose the suites of TLS 1.3 (SSL_CTX_set_ciphersuites(3)).

    Args:
        context: The server's.
        suites: Names with colons between them. OpenSSL leaves out what it does not know.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL knows none of them.
    """
    check(lib.policy_ciphersuites(_address(context), suites.encode()), f"suites of TLS 1.3 {suites!r}")


def set_signature_algorithms(context: SSL.Context, algorithms: str) -> None:
    """Choose what is signed with, and what clients may sign with (SSL_CTX_set1_sigalgs_list(3)).

    Args:
        context: The server's.
        algorithms: Names with colons between them, the preferred one first.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL does not know one of them.
    """
    status = lib.policy_signature_algorithms(_address(context), algorithms.encode())
    check(status, f"signature algorithms {algorithms!r}")


def set_num_tickets(context: SSL.Context, count: int) -> None:
    """Choose how many tickets a TLS 1.3 client is given after a full handshake (SSL_CTX_set_num_tickets(3)).

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL refuses.
    """
    check(lib.policy_num_tickets(_address(context), count), f"{count} tickets")


def set_session_cache(context: SSL.Context, most: int) -> None:
    """Choose how many sessions are kept in memory, for clients without tickets; 0: none.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    lib.policy_session_cache(_address(context), most)


def _address(context: SSL.Context) -> object:
    linkage.attach()
    return context_address(context)
