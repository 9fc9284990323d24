"""What cheroot reads and writes instead of a socket. The handshake is made by the first worker that reads."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from cheroot import errors
from cheroot.makefile import StreamReader
from OpenSSL import SSL

from tlsserver.errors import TLSServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.integrations.blocking_handshake import Opened

__all__ = ["Reader", "TLSSocket"]

logger = logging.getLogger(__name__)

_EOF = "unexpected eof"
_DISCARD_SIZE = 64 * 1024


class TLSSocket:
    """One connection of cheroot's. One thread at a time, but for `shutdown`.

    Args:
        sock: Accepted; it becomes this object's.
        shake_hands: Makes the handshake on the calling thread.
        opened: Told what it has come to.
    """

    def __init__(
        self,
        sock: socket.socket,
        shake_hands: Callable[[socket.socket], Opened],
        opened: Callable[[Opened], object],
    ) -> None:
        self._sock = sock
        self._shake_hands = shake_hands
        self._opened = opened
        self._connection: SSL.Connection | None = None
        self._failure: str | None = None
        self._timeout = sock.gettimeout()
        sock.setblocking(False)

    def __del__(self) -> None:
        """Close it: after an answer of 503 cheroot leaves that to the garbage collector."""
        self._sock.close()

    # Reading and writing

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ANN401, ARG002 - as of sockets
        """Read; returns how many bytes, 0 at the end of the stream.

        Raises:
            cheroot.errors.FatalSSLAlert: The handshake has failed, or the stream is broken.
            TimeoutError: Nothing came in time.
            OSError: The connection is broken.
        """
        connection = self._open()
        try:
            return int(self._call(connection.recv_into, buffer, nbytes or None))
        except EOFError:
            return 0

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401, ARG002 - as of sockets
        """Write all of it; returns how many bytes that are. Raises the same as `recv_into`."""
        connection = self._open()
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            try:
                sent += self._call(connection.send, view[sent:])
            except EOFError:  # noqa: PERF203 - the loop ends
                raise BrokenPipeError(errno.EPIPE, "the client has left") from None
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ANN401 - as of sockets
        """Write all of it."""
        self.send(data, flags)

    def pending(self) -> int:
        """Return how many bytes are decrypted and not read."""
        return 0 if self._connection is None else self._connection.pending()

    def _open(self) -> SSL.Connection:
        if self._connection is None:
            if self._failure is not None:
                raise errors.FatalSSLAlert(self._failure)
            if self._sock.fileno() < 0:
                raise OSError(errno.EBADF, "the connection is closed")
            self._connection = self._handshake()
        return self._connection

    def _handshake(self) -> SSL.Connection:
        """Shake hands, once: cheroot would answer any error with a 500, for which it writes again."""
        try:
            opened = self._shake_hands(self._sock)
            self._opened(opened)
        except BaseException as error:
            self._failure = str(error) or type(error).__name__
            if isinstance(error, (TLSServerError, OSError)):
                raise errors.FatalSSLAlert(self._failure) from None
            raise
        return opened.connection

    def _call(self, call: Callable[..., int], *args: Any) -> int:  # noqa: ANN401 - the call's
        """Make a call of pyOpenSSL's as if the socket did block.

        Raises:
            EOFError: The stream has ended, properly or not: as with plain sockets, HTTP knows how long its bodies are.
        """
        until = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            try:
                return call(*args)
            except SSL.WantReadError:  # noqa: PERF203 - this is what the loop is for
                self._wait(select.POLLIN, until)
            except SSL.WantWriteError:
                self._wait(select.POLLOUT, until)
            except SSL.ZeroReturnError:
                raise EOFError from None
            except SSL.Error as error:
                raise _broken(error) from error

    def _wait(self, events: int, until: float | None) -> None:
        poll = select.poll()
        poll.register(self._sock, events)
        if not poll.poll(None if until is None else max(until - time.monotonic(), 0) * 1000):
            raise TimeoutError("timed out")  # cheroot knows it by these words

    # The end

    def shutdown(self, how: int) -> None:
        """End the stream (shutdown(2)), both ways with a close_notify before. `SHUT_RD` from any thread."""
        if how != socket.SHUT_RD and self._connection is not None:
            with contextlib.suppress(SSL.Error):
                self._connection.shutdown()
            with contextlib.suppress(OSError):
                self._sock.recv(_DISCARD_SIZE)  # what is unread would make a reset of the end
        if self._sock.fileno() >= 0:
            self._sock.shutdown(how)

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._connection = None
        self._sock.close()

    def _decref_socketios(self) -> None:
        """A file of `socket.SocketIO` on this is closed; cheroot closes the socket by itself."""

    # As of sockets

    @property
    def family(self) -> int:
        """The address family."""
        return self._sock.family

    def fileno(self) -> int:
        """Return the descriptor, -1 when it is closed."""
        return self._sock.fileno()

    def gettimeout(self) -> float | None:
        """Return how long a read or a write may wait, in seconds."""
        return self._timeout

    def settimeout(self, seconds: float | None) -> None:
        """Set how long a read or a write may wait, in seconds; None: for ever."""
        self._timeout = seconds

    def getsockname(self) -> Any:  # noqa: ANN401 - its form depends on the family
        """Return our address."""
        return self._sock.getsockname()

    def getpeername(self) -> Any:  # noqa: ANN401 - its form depends on the family
        """Return the client's address."""
        return self._sock.getpeername()

    def getsockopt(self, *args: int) -> Any:  # noqa: ANN401 - as of sockets
        """Return an option (getsockopt(2))."""
        return self._sock.getsockopt(*args)

    def setsockopt(self, *args: Any) -> None:  # noqa: ANN401 - as of sockets
        """Set an option (setsockopt(2))."""
        self._sock.setsockopt(*args)


class Reader(StreamReader):
    """cheroot's, which knows what OpenSSL has decrypted already: no selector shows that."""

    def has_data(self) -> bool:
        """Return whether something can be read at once."""
        raw: Any = self.raw
        sock = raw._sock  # noqa: SLF001 - socket.SocketIO has no other way; None: an application has closed its input
        return bool(super().has_data() or (sock is not None and sock.pending()))  # type: ignore[no-untyped-call]


def _broken(error: SSL.Error) -> Exception:
    """Tell what a failed call of pyOpenSSL's means to cheroot."""
    if isinstance(error, SSL.SysCallError):
        number = error.args[0]
        return EOFError() if number in (-1, errno.EPIPE) else OSError(number, error.args[1])
    reasons = [str(entry[-1]) for entry in error.args[0]] if error.args else []
    if any(_EOF in reason for reason in reasons) or not reasons:
        return EOFError()
    return errors.FatalSSLAlert("; ".join(reasons))
