"""Application protocols, chosen in C (RFC 7301)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import context_address, lib, raise_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from OpenSSL import SSL

__all__ = ["set_alpn"]

_LONGEST_PROTOCOL = 255


def set_alpn(context: SSL.Context, protocols: Sequence[str]) -> None:
    """Choose the application protocol in C, in the server's order (RFC 7301).

    Args:
        context: A pyOpenSSL Context that no Connection was made of yet.
        protocols: Names such as ``h2`` and ``http/1.1``; a client that offers ALPN and none of them is refused.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ValueError: A name is empty or longer than 255 bytes.
    """
    linkage.attach()
    names = [name.encode("ascii") for name in protocols]
    if not names or not all(0 < len(name) <= _LONGEST_PROTOCOL for name in names):
        message = f"ALPN protocols are {list(protocols)}, each must be 1 to {_LONGEST_PROTOCOL} bytes long"
        raise ValueError(message)
    wire = b"".join(bytes([len(name)]) + name for name in names)
    status = lib.callbacks_set_alpn(context_address(context), wire, len(wire))
    if status != lib.SHIM_OK:
        raise_status(status, "setting ALPN")
