"""Settings of a client's Context for which pyOpenSSL has no function in all its releases.

All are for a Context that no Connection was made of yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.errors import ShimError
from engine_shim.native import check, context_address, lib

if TYPE_CHECKING:
    from OpenSSL import SSL


def set_groups(context: SSL.Context, groups: str) -> None:
    """Choose the key exchange groups (SSL_CTX_set1_groups_list(3)).

    Args:
        context: Of client or server.
        groups: Names with colons between them, the preferred one first.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: This OpenSSL knows none of them by that name.
    """
    linkage.attach()
    if not groups:  # not all releases of OpenSSL refuse that, and then no handshake succeeds
        raise ShimError("key exchange groups: none is named")
    check(lib.client_context_groups(context_address(context), groups.encode()), f"key exchange groups {groups!r}")


def read_ahead(context: SSL.Context) -> None:
    """Take all that has come with one read(2), where it is two for each record (SSL_CTX_set_read_ahead(3)).

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    lib.client_context_read_ahead(context_address(context))


def believe_certificates(context: SSL.Context) -> None:
    """Build and verify no chain at all, which is cheaper than to ignore what came of it.

    That the server has the key of its certificate is verified all the same: it is part of the handshake.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    lib.client_context_believe(context_address(context))
