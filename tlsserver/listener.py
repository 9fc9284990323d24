"""The listening socket: binding it, and accepting from it with a budget, with admission and without spinning."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from tlsserver.errors import AddressError
from tlsserver.reactor import EVENT_READ, Reactor, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.config import ServerConfig
    from tlsserver.stats import Counters

__all__ = ["Listener", "bind", "room"]

logger = logging.getLogger(__name__)

# accept(2): errors of the connection that was about to be accepted. It is gone, the next one may be fine.
_CONNECTION_GONE = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM, errno.ETIMEDOUT),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    }
)

# A lack of descriptors or memory does not go away by asking again at once, and the socket stays readable: without a
# pause the loop would spin. 100 ms is long enough to serve others, and short enough for a client not to notice.
_PAUSE = 0.1

_HINTS = {
    errno.EADDRINUSE: "the port is in use: stop the other program or choose another port (0: any free one)",
    errno.EACCES: "not allowed: choose a port above 1023, or give the program CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one of its own, or 0.0.0.0 for all",
}


def bind(host: str, port: int, backlog: int) -> socket.socket:
    """Make a listening socket.

    Args:
        host: A name or an address; of a name with several addresses the first is taken; ``""``: all interfaces.
        port: The port, 0 for any free one.
        backlog: listen(2).

    Returns:
        A non-blocking socket. What it accepts has Nagle's algorithm off (inherited on Linux), because TLS writes
        whole records, and holding the last one back costs a round trip.

    Raises:
        AddressError: In one line: what, why, and what to do.
    """
    where = f"cannot listen on {host or '*'}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        message = f"{where}: no such host: give an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        raise AddressError(message) from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(address)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise AddressError(f"{where}: {_HINTS.get(error.errno or 0, error.strerror)}") from None
    listening.setblocking(False)
    return listening


def room(config: ServerConfig, counters: Counters, connections: int) -> int:
    """Return how many more connections of a server are admitted.

    Whoever lingers has cost what a handshake costs and holds it, so it counts as one. Draining jobs have a bound of
    their own, per engine: they must not keep out those whom another engine serves, nor those who are to be refused.

    Args:
        config: The limits.
        counters: What the server has counted.
        connections: How many it has, those that drain among them.
    """
    more = config.max_handshakes - counters.handshakes_in_progress - counters.lingering_now
    limit = config.limit_concurrency
    return more if limit is None else min(more, limit - connections + counters.draining_now)


class Listener:
    """Accepts connections while there is room for them. Loop thread only."""

    def __init__(
        self,
        listening: socket.socket,
        reactor: Reactor,
        *,
        accepted: Callable[[socket.socket, Any], object],
        room: Callable[[], int],
        budget: int,
    ) -> None:
        """Begin to accept.

        Args:
            listening: Bound, listening, non-blocking; it becomes the listener's.
            reactor: The loop.
            accepted: Takes over each non-blocking socket, with the peer's address.
            room: How many more connections are admitted now.
            budget: Accept at most so many in a turn.
        """
        self._socket = listening
        # What socket.accept() finds out anew each time, which costs more than accept4(2).
        self._kind = int(listening.family), int(listening.type), listening.proto
        self._reactor = reactor
        self._accepted = accepted
        self._room = room
        self._budget = budget
        self._registration = reactor.add(listening.fileno(), EVENT_READ, self._readable)
        self._pause: Timer | None = None
        self._exhausted = False

    def admit(self) -> None:
        """Accept from now on if there is room, else stop. For the end of each turn: mostly it changes nothing."""
        wanted = self._pause is None and self._room() > 0
        self._reactor.modify(self._registration, EVENT_READ if wanted else 0)

    def accept_waiting(self, most: int) -> None:
        """Accept what the kernel holds, before the socket is closed: these clients believe to be connected."""
        self._accept(most)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._reactor.remove(self._registration)
            self._socket.close()

    def _readable(self, _events: int) -> None:
        self._accept(self._budget)

    def _accept(self, most: int) -> None:
        for _ in range(min(most, self._room())):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Return whether it is worth while to ask for the next."""
        try:
            fd, address = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - what accept() is made of
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _CONNECTION_GONE:
                return True
            self._rest(error)
            return False
        self._exhausted = False
        self._hand_over(socket.socket(*self._kind, fileno=fd), address)
        return True

    def _hand_over(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401 - its form depends on the family
        try:
            sock.setblocking(False)
            self._accepted(sock, address)
        except Exception:
            logger.exception("a connection could not be taken over and is closed")
            sock.close()

    def _rest(self, error: OSError) -> None:
        """Log the first error of a row, and leave the socket alone for a while."""
        if not self._exhausted:
            reason = os.strerror(error.errno or 0)
            logger.warning("cannot accept connections: %s; trying again every %g s", reason, _PAUSE)
        self._exhausted = True
        self._pause = self._reactor.call_later(_PAUSE, self._go_on)
        self.admit()

    def _go_on(self) -> None:
        self._pause = None
        self.admit()
