"""One SSL of pyOpenSSL, driven asynchronously: every call is one step and says what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL

from engine_shim import linkage, paused
from engine_shim.native import context_address, ffi, lib, raise_status, ssl_address
from engine_shim.questions import ClientQuestion, split_chain
from engine_shim.read_buffer import ReadBuffer
from engine_shim.settled import SETTLED_ROOM, Settled, read_settled
from engine_shim.wait import WaitContextView

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Status(IntEnum):
    """What a step came to: SSL_get_error(3), with its numbers."""

    DONE = 0
    ERROR = 1
    WANT_READ = 2
    WANT_WRITE = 3
    WANT_X509_LOOKUP = 4
    SYSCALL = 5
    CLOSED = 6
    WANT_CONNECT = 7
    WANT_ACCEPT = 8
    WANT_ASYNC = 9
    WANT_ASYNC_JOB = 10
    WANT_CLIENT_HELLO_CB = 11
    WANT_RETRY_VERIFY = 12


_STATUS: tuple[Status, ...] = tuple(Status)
_WANT_ASYNC = int(Status.WANT_ASYNC)  # an attribute of an enumeration costs a call before Python 3.12

# Looked up once: every step needs them.
_async_ssl_call = lib.async_ssl_call
_CALL_HANDSHAKE, _CALL_READ, _CALL_WRITE = lib.CALL_HANDSHAKE, lib.CALL_READ, lib.CALL_WRITE

# shim.h: `fds` and `added` of struct async_step.
_FDS_IN_STEP = 4


@dataclass(frozen=True)
class OpenSSLError:
    """One entry of OpenSSL's error queue.

    Attributes:
        code: OpenSSL's packed code (ERR_get_error(3)).
        text: The reason, with its detail.
        shim_status: shim.h's ``enum shim_status`` if the shim raised it, else 0.
    """

    code: int
    text: str
    shim_status: int

    @property
    def is_cancelled(self) -> bool:
        """The connection was cancelled."""
        return bool(self.shim_status == lib.SHIM_ERR_CANCELLED)

    @property
    def is_engine(self) -> bool:
        """The shim or the engine is at fault, not the peer."""
        return self.shim_status != 0


def _flags(*, handshake: bool, io: bool) -> int:
    return int((lib.ASYNC_HANDSHAKE if handshake else lib.ASYNC_OFF) | (lib.ASYNC_IO if io else lib.ASYNC_OFF))


class AsyncSSL:
    """One SSL, driven asynchronously; keeps the Connection, and with it socket and Context, until it is closed.

    Belongs to the thread that made it. While a job is paused only the same call with the same buffer may be
    repeated.

    Args:
        connection: The Connection, with a socket that must stay open until :meth:`close`: a paused job that unwinds
            may still write an alert to it.
        handshake: Whether the handshake runs in a job, so that engines can pause it.
        io: Whether reading, writing and shutting down do, too (engines that offload ciphers).

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """

    __slots__ = ("__weakref__", "_handle", "_kept", "_pinned", "_step", "_wait_context")

    def __init__(self, connection: SSL.Connection, *, handshake: bool = True, io: bool = False) -> None:
        linkage.attach()
        ssl = ssl_address(connection)
        # The SSL's callbacks and its descriptor are the Connection's.
        self._take(lib.async_ssl_new(ssl, _flags(handshake=handshake, io=io)), connection)

    def _take(self, handle: Any, kept: object) -> None:  # noqa: ANN401 - cffi's pointers have no types
        if handle == ffi.NULL:
            raise_status(lib.SHIM_ERR_MEMORY, "making an AsyncSSL")
        self._handle = ffi.gc(handle, lib.async_ssl_free)
        self._step = lib.async_ssl_step(handle)
        self._pinned: Any = None
        self._wait_context: _ConnectionsWaitContext | None = None
        self._kept: object = kept

    def _call(self, call: int, buffer: Any, length: int) -> Status:  # noqa: ANN401 - cffi's pointers have no types
        status: int = _async_ssl_call(self._handle, call, buffer, length)
        if status < 0:
            raise_status(-status)
        if status == _WANT_ASYNC:
            self._pinned = buffer
            paused.keep(self)
        elif self._pinned is not None:
            self._pinned = None
            paused.let_go(self)
        return _STATUS[status]

    def handshake(self) -> Status:
        """Do or resume the handshake (SSL_do_handshake(3))."""
        return self._call(_CALL_HANDSHAKE, ffi.NULL, 0)

    def read_into(self, buffer: Buffer | ReadBuffer) -> Status:
        """Read decrypted bytes (SSL_read(3)); :attr:`count` says how many.

        Args:
            buffer: Writable; kept until the call ends if it pauses.
        """
        if type(buffer) is ReadBuffer:
            return self._call(_CALL_READ, buffer.address, buffer.size)
        pinned = ffi.from_buffer(buffer, require_writable=True)
        return self._call(_CALL_READ, pinned, len(pinned))

    def write(self, buffer: Buffer) -> Status:
        """Encrypt and write bytes (SSL_write(3)); :attr:`count` says how many were taken, perhaps not all.

        Args:
            buffer: At least one byte; kept until the call ends if it pauses.
        """
        if type(buffer) is bytes:  # whose address cffi takes itself
            return self._call(_CALL_WRITE, buffer, len(buffer))
        pinned = ffi.from_buffer(buffer)
        return self._call(_CALL_WRITE, pinned, len(pinned))

    def shutdown(self) -> Status:
        """Send close_notify (SSL_shutdown(3)); DONE with :attr:`count` 1 when the peer's has come as well."""
        return self._call(lib.CALL_SHUTDOWN, ffi.NULL, 0)

    @property
    def count(self) -> int:
        """Bytes read or written by the last call that was DONE."""
        count: int = self._step.count
        return count

    @property
    def drained(self) -> bool:
        """After a read that was DONE: nothing is left behind it, so the next one waits until the socket is readable."""
        drained: int = self._step.drained
        return drained != 0

    def look_twice(self) -> None:
        """Ask the socket once more before a read is :attr:`drained`: for loops that tell of an error only once."""
        lib.async_ssl_look_twice(self._handle)

    @property
    def system_error(self) -> int:
        """After SYSCALL: errno, or 0 where the peer left without close_notify."""
        return int(self._step.system_error)

    @property
    def paused(self) -> bool:
        """Whether a job is paused."""
        return bool(lib.async_ssl_is_paused(self._handle))

    def wait_fds(self) -> tuple[int, ...]:
        """List the wait fds of the paused job, any number (ASYNC_WAIT_CTX_get_all_fds(3)); not yours to close."""
        count = self._step.fd_count
        if count <= _FDS_IN_STEP:
            return tuple(self._step.fds[0:count])
        out = ffi.new("int[]", count)
        return tuple(out[0 : min(count, lib.async_ssl_fds(self._handle, out, count))])

    def added_fds(self) -> tuple[int, ...]:
        """List the wait fds that were set since the paused job was last resumed (ASYNC_WAIT_CTX_get_changed_fds(3)).

        A number that is among them is a new descriptor, even if there was one of the same number before.
        """
        count = self._step.added_count
        if count <= _FDS_IN_STEP:
            return tuple(self._step.added[0:count])
        out = ffi.new("int[]", count)
        return tuple(out[0 : min(count, lib.async_ssl_added(self._handle, out, count))])

    @property
    def wait_serial(self) -> int:
        """Tells the only wait fd from all that ever had its number, and knows it when it comes again; 0: unknown."""
        return int(self._step.serial)

    @property
    def wait_context(self) -> WaitContextView:
        """The connection's wait context, of all its jobs: a view, because the connection owns it until it is closed."""
        if self._wait_context is None:
            self._wait_context = _ConnectionsWaitContext(self._handle)
        return self._wait_context

    def errors(self) -> tuple[OpenSSLError, ...]:
        """List OpenSSL's error queue as the last call left it, oldest first."""
        raw = lib.async_ssl_errors(self._handle)
        return tuple(
            OpenSSLError(raw[i].code, ffi.string(raw[i].text).decode(errors="replace"), raw[i].ours)
            for i in range(self._step.error_count)
        )

    def settled(self) -> Settled:
        """Return what the handshake settled; not after :meth:`close`."""
        out = ffi.new("char[]", SETTLED_ROOM)
        return read_settled(ffi.unpack(out, lib.async_ssl_settled(self._handle, out, SETTLED_ROOM)))

    def question(self) -> ClientQuestion | None:
        """Return what the paused call asks, once; None: nothing, or it was returned before."""
        if not self._step.asks:
            return None
        handle = lib.async_ssl_question(self._handle)
        return None if handle == ffi.NULL else ClientQuestion(handle)

    @property
    def verify_error(self) -> str | None:
        """Why the peer's certificate was refused, in OpenSSL's words; None: it was not."""
        text = lib.async_ssl_verify_error(self._handle)
        return None if text == ffi.NULL else str(ffi.string(text).decode())

    def peer_chain(self) -> tuple[bytes, ...]:
        """Return the peer's verified certificates in DER, its own first; after a resumption its own alone.

        Returns:
            Nothing, if there is none, or after :meth:`close`.
        """
        length = lib.async_ssl_peer_chain(self._handle, ffi.NULL, 0)
        if not length:
            return ()
        out = ffi.new("unsigned char[]", length)
        lib.async_ssl_peer_chain(self._handle, out, length)
        return split_chain(bytes(ffi.buffer(out)))

    @property
    def raw(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """The SSL, borrowed; NULL after :meth:`close`."""
        return lib.async_ssl_raw(self._handle)

    @property
    def reused(self) -> bool:
        """Whether the handshake resumed a session."""
        return bool(lib.async_ssl_reused(self._handle))

    @property
    def group(self) -> str | None:
        """OpenSSL's name of the key exchange group, where there is one and this OpenSSL tells."""
        name = lib.async_ssl_group(self._handle)
        return None if name == ffi.NULL else str(ffi.string(name).decode())

    def cancel(self) -> None:
        """Cancel the op in flight and all later ones; the next call resumes the job, which then fails."""
        lib.async_ssl_cancel(self._handle)

    def close(self) -> bool:
        """Cancel, resume a paused job so that it unwinds, and give the SSL back.

        Returns:
            Whether it is done. False: the job of a third-party engine goes on; call again when a wait fd is readable.

        Raises:
            WrongThreadError: A job is paused and was started on another thread.
        """
        status = lib.async_ssl_close(self._handle)
        if status == lib.SHIM_ERR_BUSY:
            return False
        if status != lib.SHIM_OK:
            raise_status(status, "closing")
        self._pinned = self._kept = None
        paused.let_go(self)
        return True


class _Maker:
    """Makes ends of connections without pyOpenSSL's Connection."""

    __slots__ = ("_context", "_flags", "_ssl_context")

    def __init__(self, context: SSL.Context, *, handshake: bool = True, io: bool = False) -> None:
        linkage.attach()
        SSL.Connection(context)
        self._context = context
        self._ssl_context = context_address(context)
        self._flags = _flags(handshake=handshake, io=io)

    def _made(self, handle: Any) -> AsyncSSL:  # noqa: ANN401 - cffi's pointers have no types
        made = AsyncSSL.__new__(AsyncSSL)
        made._take(handle, self._context)  # noqa: SLF001 - half made
        return made


class Acceptor(_Maker):
    """Makes the server's ends of connections, without pyOpenSSL's Connection: several times faster than with it.

    They read ahead: read until a step wants to wait, then watch the socket level-triggered. A handshake may want to
    write although OpenSSL is done with it: it is DONE when all is sent.

    Args:
        context: The Context, complete: it is frozen as by its first Connection. It must not have callbacks of Python's,
            which pyOpenSSL hands a Connection that is not there.
        handshake: As for :class:`AsyncSSL`.
        io: The same.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """

    __slots__ = ()

    def accept(self, fd: int) -> AsyncSSL:
        """Make the end that waits for a client's handshake.

        Args:
            fd: A connected non-blocking socket, which stays the caller's and must stay open until
                :meth:`AsyncSSL.close`.

        Raises:
            MemoryError: There is none.
        """
        return self._made(lib.async_ssl_accept(self._ssl_context, fd, self._flags))


class Connector(_Maker):
    """Makes the clients' ends of connections, as :class:`Acceptor` does the server's, and under the same conditions.

    Args:
        context: As for :class:`Acceptor`, of a client.
        handshake: As for :class:`AsyncSSL`.
        io: The same.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """

    __slots__ = ()

    def connect(self, fd: int) -> AsyncSSL:
        """Make the end that begins the handshake.

        Args:
            fd: As for :meth:`Acceptor.accept`.

        Raises:
            MemoryError: There is none.
        """
        return self._made(lib.async_ssl_connect(self._ssl_context, fd, self._flags))


class _ConnectionsWaitContext(WaitContextView):
    """A view: it asks for the context each time, because that is gone when the connection is closed."""

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - cffi's pointers have no types
        super().__init__()
        self._handle = handle

    def _find(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        return lib.async_ssl_wait_context(self._handle)
