"""Addresses of sockets: where the other end is, and how logs show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

__all__ = ["as_text", "own_address", "peer_address"]


def peer_address(sock: socket.socket) -> Any:  # noqa: ANN401 - its form depends on the family
    """Return the other end's address; None when it has left."""
    try:
        return sock.getpeername()
    except OSError:
        return None


def own_address(sock: socket.socket) -> Any:  # noqa: ANN401 - its form depends on the family
    """Return our end's address; None when the socket is closed."""
    try:
        return sock.getsockname()
    except OSError:
        return None


def as_text(address: Any, peer: str = "client") -> str:  # noqa: ANN401 - its form depends on the family
    """Return an address as logs show it.

    Args:
        address: As sockets have it; None: nobody knows it any more.
        peer: What the other end is, where it has no address.
    """
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"a {peer} that has left" if address is None else str(address) or f"a local {peer}"
