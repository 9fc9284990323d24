"""Connecting to a key server without waiting: names are resolved on a thread, and all addresses are tried."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from selectors import EVENT_WRITE
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from engine_shim import Loop
    from tlsserver.signers.remote_address import Address

__all__ = ["Connecting"]

_CREDENTIALS = struct.Struct("3i")  # unix(7): struct ucred: process, user, group
# What getaddrinfo(3) gives: family and socket address.
_Found = tuple[int, Any]


class Connecting:
    """One attempt to connect. ``connected`` or ``failed`` is called once, unless `cancel` comes first.

    Args:
        loop: Whose thread this belongs to.
        address: Where to.
        timeout: Seconds for each of the addresses that the name has.
        peer_uids: Users of whom one must own a Unix socket's other end.
        connected: Called with the socket, which does not block.
        failed: Called with the reason.
    """

    def __init__(
        self,
        loop: Loop,
        address: Address,
        *,
        timeout: float,
        peer_uids: Collection[int],
        connected: Callable[[socket.socket], object],
        failed: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._address = address
        self._timeout = timeout
        self._peer_uids = peer_uids
        self._connected = connected
        self._failed = failed
        self._is_over = False
        self._left: list[_Found] = []
        self._why = "its name has no address"
        self._socket: socket.socket | None = None
        self._registration: Any = None
        self._timer: Any = None
        if address.path is not None:
            self._left.append((socket.AF_UNIX, address.unix_name))
            loop.call_soon(self._next)
        else:
            loop.call_soon(self._resolve)

    def cancel(self) -> None:
        """Stop. Idempotent."""
        self._is_over = True
        self._drop()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket, and touch nothing else."""
        self._is_over = True
        if self._socket is not None:
            self._socket.close()

    def _resolve(self) -> None:
        if self._is_over:
            return
        try:
            self._left = _look_up(self._address, socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            # A daemon: resolvers can take as long as they like, and nobody waits for this one.
            try:
                threading.Thread(target=self._resolve_slowly, name="tls-resolve", daemon=True).start()
            except RuntimeError as error:  # the limit on processes
                self._resolved([], f"its name cannot be resolved: {error}")
        else:
            self._next()

    def _resolve_slowly(self) -> None:
        found: list[_Found] = []
        why = None
        try:
            found = _look_up(self._address, socket.AI_ADDRCONFIG)
        except OSError as error:
            why = f"its name cannot be resolved: {error.strerror}"
        except UnicodeError as error:
            why = f"its name cannot be resolved: {error}"
        with contextlib.suppress(Exception):  # the loop may have ended, and then nobody wants to know
            self._loop.call_soon_threadsafe(self._resolved, found, why)

    def _resolved(self, found: list[_Found], why: str | None) -> None:
        if not self._is_over:
            self._left = found
            self._why = why or self._why
            self._next()

    def _next(self) -> None:
        """Try the next address."""
        self._drop()
        if self._is_over:
            return
        if not self._left:
            self._is_over = True
            self._failed(self._why)
            return
        family, name = self._left.pop(0)
        try:
            sock = self._socket = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(name)
        except BlockingIOError as error:
            self._wait(error)
        except OSError as error:
            self._fail(f"it cannot be reached: {error.strerror or error}")
        else:
            self._finish()

    def _wait(self, error: BlockingIOError) -> None:
        assert self._socket is not None  # noqa: S101 - for mypy
        if self._address.path is not None:
            # connect(2): EAGAIN, its queue is full, and nothing tells when there is room
            self._fail(f"it cannot be reached: {error.strerror}")
            return
        try:
            self._registration = self._loop.add(self._socket.fileno(), EVENT_WRITE, self._ready)
        except OSError as refused:  # epoll_ctl(2): ENOSPC, ENOMEM
            self._fail(f"its socket cannot be watched: {refused.strerror}")
            return
        self._timer = self._loop.call_later(self._timeout, self._fail, "it cannot be reached: no answer in time")

    def _ready(self, _events: int) -> None:
        assert self._socket is not None  # noqa: S101 - for mypy
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(f"it cannot be reached: {os.strerror(code)}")
        else:
            self._finish()

    def _finish(self) -> None:
        sock, self._socket = self._socket, None
        assert sock is not None  # noqa: S101 - for mypy
        self._drop()
        if self._address.path is not None:
            uid = _peer_uid(sock)
            if uid not in self._peer_uids:
                sock.close()
                self._fail(
                    f"its socket is user {uid}'s, who is not one of peer_uids: allow that user, or see who listens"
                )
                return
        self._is_over = True
        self._connected(sock)

    def _fail(self, why: str) -> None:
        self._why = why
        self._next()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._registration is not None:
            self._loop.remove(self._registration)
        if self._socket is not None:
            self._socket.close()
        self._timer = self._registration = self._socket = None


def _look_up(address: Address, flags: int) -> list[_Found]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, name) for family, _, _, _, name in found]


def _peer_uid(sock: socket.socket) -> int:
    """Return the user who listens at a Unix socket: who that was when it began to (unix(7), SO_PEERCRED)."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
