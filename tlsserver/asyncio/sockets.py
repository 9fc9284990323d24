"""Listening sockets, as asyncio's ``create_server`` and ``create_unix_server`` make them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["bound_to", "bound_to_path", "given", "send_at_once"]

Hosts = str | Iterable[str] | None


async def bound_to(
    loop: asyncio.AbstractEventLoop,
    host: Hosts,
    port: int | None,
    *,
    family: int,
    flags: int,
    reuse_address: bool | None,
    reuse_port: bool | None,
) -> list[socket.socket]:
    """Make the sockets of all addresses of one or more hosts.

    Args:
        loop: Looks the names up.
        host: One, several, or None or "" for all interfaces.
        port: None or 0: any free one, not the same for each.
        family: ``AF_UNSPEC``, or the only one.
        flags: Of getaddrinfo(3).
        reuse_address: SO_REUSEADDR; None: yes.
        reuse_port: SO_REUSEPORT.

    Returns:
        Non-blocking sockets, bound; what they accept has Nagle's algorithm off (inherited on Linux), because TLS writes
        whole records, and holding the last one back costs a round trip.

    Raises:
        OSError: A name is not known, or an address cannot be bound; no socket is left.
    """
    hosts = [host or None] if isinstance(host, str) or host is None else list(host)
    found: dict[Any, None] = {}
    for one in hosts:
        addresses = await _addresses(loop, one, port or 0, family=family, flags=flags)
        if not addresses:
            raise OSError(f"getaddrinfo({one!r}) returned empty list")
        found.update(dict.fromkeys(addresses))
    with contextlib.ExitStack() as stack:
        made = []
        for one_family, kind, protocol, _, address in found:
            sock = _maybe_socket(one_family, kind, protocol)
            if sock is None:
                continue
            stack.callback(sock.close)
            _bind(sock, address, reuse_address=reuse_address is not False, reuse_port=bool(reuse_port))
            made.append(sock)
        stack.pop_all()
    return made


async def _addresses(
    loop: asyncio.AbstractEventLoop, host: str | None, port: int, *, family: int, flags: int
) -> list[Any]:
    """Look a name up; what is no name needs none of the loop's threads."""
    named = {"family": family, "type": socket.SOCK_STREAM}
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, **named, flags=flags | socket.AI_NUMERICHOST)
    try:
        return await loop.getaddrinfo(host, port, **named, flags=flags)
    except socket.gaierror as error:
        reason = (error.strerror or "unknown").lower()
        raise socket.gaierror(error.errno, f"cannot look up {host!r} to listen there: {reason}") from None


def _maybe_socket(family: int, kind: int, protocol: int) -> socket.socket | None:
    """Return None where the machine does not have the family (IPv6 switched off)."""
    try:
        return socket.socket(family, kind, protocol)
    except OSError:
        return None


def _bind(sock: socket.socket, address: Any, *, reuse_address: bool, reuse_port: bool) -> None:  # noqa: ANN401 - its form depends on the family
    if reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    send_at_once(sock)
    sock.setblocking(False)
    try:
        sock.bind(address)
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}") from None


def bound_to_path(path: str | bytes | Path) -> socket.socket:
    """Make a Unix socket; a socket that lies at its path gives way, as with asyncio, whether it is in use or not.

    Raises:
        OSError: The path cannot be bound.
    """
    where = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if where[:1] not in ("\0", b"\0"):
            _remove_socket(Path(os.fsdecode(where)))
        sock.bind(where)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"cannot listen on the path {where!r}: {reason}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_socket(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()


def given(sock: socket.socket, family: int | None = None) -> socket.socket:
    """Check a socket of the user's.

    Raises:
        ValueError: It is no stream socket, or of another family.
    """
    if sock.type != socket.SOCK_STREAM or (family is not None and sock.family != family):
        wanted = "A Unix stream socket" if family is not None else "A stream socket"
        raise ValueError(f"{wanted} was expected, got {sock!r}")
    sock.setblocking(False)
    send_at_once(sock)
    return sock


def send_at_once(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off, where there is one: see `bound_to`."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
