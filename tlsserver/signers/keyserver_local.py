"""The Unix sockets of a key server: who binds them, who may connect, and the connections."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from tlsserver.errors import AddressError
from tlsserver.listener import Listener
from tlsserver.signers.keyserver_access import LocalPeer
from tlsserver.signers.keyserver_stream import StreamTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from tlsserver.reactor import Reactor

__all__ = ["LocalService", "LocalSocket", "adopt"]

logger = logging.getLogger(__name__)

BACKLOG = 1024
_ACCEPT_BUDGET = 8  # as `tlsserver.ServerConfig` has it
_CONNECTIONS_MOST = 1000  # each may hold some 100 KB
_OWNER_ONLY, _WITH_GROUP = 0o600, 0o660


class LocalSocket:
    """A listening Unix socket with its file.

    Attributes:
        path: Where it is.
        socket: Listening, non-blocking.
    """

    def __init__(
        self, path: Path, *, group: int | None = None, owner: int | None = None, mode: int | None = None
    ) -> None:
        """Bind and listen; a file that nobody listens on any more is replaced.

        Args:
            path: Where to.
            group: Whose members may connect; None: the owner alone.
            owner: Who owns the file; None: whoever this process runs as.
            mode: Of the file; None: what the group needs.

        Raises:
            AddressError: Somebody listens there, it is another kind of file, or it is not allowed.
        """
        self.path = path
        where = f"cannot listen on unix:{path}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _remove_stale(path, where)
            # Nobody can connect before listen(2). The folder may be another user's, who can put a link in the file's
            # place at any moment: so rights come with bind(2), and lchown(2) follows nothing.
            needed = _OWNER_ONLY if group is None else _WITH_GROUP
            _bind(self.socket, path, needed if mode is None else mode)
            self._file = _identity(path)
            os.lchown(path, -1 if owner is None else owner, -1 if group is None else group)
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            raise AddressError(f"{where}: {_why(error)}") from error
        except BaseException:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Remove the file, if it is still ours."""
        try:
            if _identity(self.path) == self._file:
                self.path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:  # the folder is not ours, after privileges were dropped
            logger.info("the socket's file %s stays, the next start replaces it: %s", self.path, error.strerror)


def _bind(sock: socket.socket, path: Path, mode: int) -> None:
    """Bind, with a file of this mode. For a moment all new files of the process have it."""
    before = os.umask(~mode & 0o777)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "there is no such folder: make it first"
    if "too long" in str(error):
        return "the path is too long for a Unix socket, which has 107 bytes: give a shorter one"
    return f"{error.strerror or error}: give another path"


def _identity(path: Path) -> tuple[int, int, int]:
    """Tell a file from another one in its place: the number of an inode is soon used again."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _remove_stale(path: Path, where: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise AddressError(f"{where}: there is a file that is no socket: give another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        found = probe.connect_ex(str(path))
    if found != errno.ECONNREFUSED:
        raise AddressError(f"{where}: somebody listens there: stop the other program or give another path")
    path.unlink()


def adopt(number: int) -> socket.socket:
    """Take over a connected Unix socket that was inherited from the process that started this one.

    Raises:
        AddressError: It is no such socket.
    """
    where = f"cannot serve on fd:{number}"
    try:
        found = socket.socket(fileno=number)
    except (OSError, ValueError, OverflowError):
        raise AddressError(f"{where}: it is no open socket: give the number of one that was inherited") from None
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not _is_connected(found):
        found.detach()
        raise AddressError(f"{where}: it is no connected Unix stream socket: give one end of a socketpair")
    found.setblocking(False)
    found.set_inheritable(False)
    return found


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class LocalService:
    """The connections of one Unix socket. Loop thread only."""

    def __init__(
        self,
        reactor: Reactor,
        *,
        protocol_factory: Callable[[], asyncio.Protocol],
        ended: Callable[[], object],
        listening: socket.socket | None = None,
        connected: socket.socket | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            reactor: The loop, which others use as well.
            protocol_factory: Makes the protocol of each connection.
            ended: Called when the last connection has ended after `begin_stop`, and, where nothing is listened on, when
                the only one has.
            listening: What to accept from; it becomes the service's.
            connected: A connection that is there already; the same.
        """
        self._reactor = reactor
        self._factory = protocol_factory
        self._ended = ended
        self._connections: set[StreamTransport] = set()
        self._is_stopping = listening is None
        self._listener: Listener | None = None
        if listening is not None:
            self._listener = Listener(
                listening, reactor, accepted=self._accepted, room=self._room, budget=_ACCEPT_BUDGET
            )
        if connected is not None:
            self._accepted(connected, "")

    def begin_stop(self) -> None:
        """Accept no more, and finish what is in progress."""
        self._is_stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.get_protocol().close_when_idle()  # type: ignore[attr-defined] # they are of our own factory
        self._maybe_end()

    def abort(self) -> None:
        """Close what is left, at once."""
        for connection in tuple(self._connections):
            connection.abort()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def _room(self) -> int:
        return _CONNECTIONS_MOST - len(self._connections)

    def _accepted(self, sock: socket.socket, _address: Any) -> None:  # noqa: ANN401 - its form depends on the family
        facts = {"client": LocalPeer.of(sock), "socket": sock, "reactor": self._reactor}
        connection = StreamTransport(self._reactor, sock, self._factory(), facts=facts, on_closed=self._closed)
        self._connections.add(connection)
        if self._listener is not None:
            self._listener.admit()

    def _closed(self, connection: StreamTransport) -> None:
        self._connections.discard(connection)
        if self._listener is not None and not self._is_stopping:
            self._listener.admit()
        self._maybe_end()

    def _maybe_end(self) -> None:
        if self._is_stopping and not self._connections:
            self._reactor.call_soon(self._ended)
