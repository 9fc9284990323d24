"""Wait contexts: where a paused job says what it waits for (``man 3 ASYNC_WAIT_CTX_new``).

Facts
- OpenSSL finds an fd by a key, which is an address and nothing more. Setting an fd under a key that is set already does
  not replace the first one but hides it.
- The cleanup routine runs when the context is freed, for each fd that is set then; it does not run at clear_fd.
- An engine may call the context's callback from a thread of its own, on the job's stack, or late.

Decision
- A key is any hashable object of Python's and gets an address of its own; an ``int`` is the address that C code uses.
- Custom data and cleanup routine stay in Python; a number travels through OpenSSL in their place.
- What the engine calls back is C and counts; Python's callback is called by `run_callbacks`, on Python's own stack.
"""

from __future__ import annotations

import itertools
import os
import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from engine_shim import linkage
from engine_shim.errors import BadDescriptorError, BusyError, UnknownWaitKeyError, WaitContextFreedError
from engine_shim.native import check, ffi, lib, raise_status

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType

    from typing_extensions import Self

    Cleanup = Callable[["WaitContextView | None", Any, int, Any], object]

__all__ = ["ChangedFds", "WaitContext", "WaitContextView", "WaitFd", "WaitStatus"]


class WaitStatus(IntEnum):
    """What an engine may tell of its last operation: ASYNC_STATUS_* (openssl/async.h), with its numbers."""

    UNSUPPORTED = 0
    ERROR = 1
    OK = 2
    EAGAIN = 3


class WaitFd(NamedTuple):
    """What is set under a key.

    Attributes:
        fd: The file descriptor.
        custom_data: As it was given; for an fd that C code set, the address as an ``int``.
    """

    fd: int
    custom_data: Any


class ChangedFds(NamedTuple):
    """The wait fds that came and went since the job was last resumed.

    Attributes:
        added: Set since then. A number may be a new descriptor although there was one of the same number before.
        deleted: Cleared since then; perhaps closed already.
    """

    added: tuple[int, ...]
    deleted: tuple[int, ...]


class _Entry(NamedTuple):
    """Python's half of one wait fd; the number that stands for it travels through OpenSSL.

    It does not keep the context alive, unless its data or its routine refer to it: one that nobody has any more is
    freed, and its cleanup routines run.
    """

    context: weakref.ref[WaitContextView]
    key: Hashable
    custom_data: Any
    cleanup: Cleanup | None


_LAST_ADDRESS = 2 ** (8 * ffi.sizeof("uintptr_t")) - 1
_numbers = itertools.count(1)
_entries: dict[int, _Entry] = {}


@ffi.def_extern()  # type: ignore[untyped-decorator] # cffi's decorators have no types
def wait_cleanup_in_python(number: int, fd: int) -> None:
    """OpenSSL frees a wait context; not on a job's stack, which C has made sure of."""
    entry = _entries.pop(number, None)
    if entry is not None and entry.cleanup is not None:
        entry.cleanup(entry.context(), entry.key, fd, entry.custom_data)


lib.wait_on_cleanup(lib.wait_cleanup_in_python)


class WaitContextView:
    """Somebody else's wait context: a connection's, as :attr:`AsyncSSL.wait_context`. One thread: the job's."""

    def __init__(self) -> None:
        self._thread = lib.thread_jobs_self()
        self._addresses: dict[Hashable, Any] = {}
        # By address: the numbers of what is set there, the newest (which hides the others) last.
        self._set: dict[int, list[int]] = {}
        self._signal: Any = ffi.NULL
        self._callback: tuple[Callable[..., object], tuple[Any, ...]] | None = None

    def _find(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        raise NotImplementedError

    @property
    def _context(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """OpenSSL's object, or the reason why there is none."""
        context = self._looked_up()
        if context == ffi.NULL:
            message = "there is no wait context: a connection has one if its calls run in jobs, until it is closed"
            raise WaitContextFreedError(message)
        return context

    def _looked_up(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """OpenSSL's object, or NULL; its lists have no lock, so it is this thread's only."""
        if self._thread != lib.thread_jobs_self():
            raise_status(lib.SHIM_ERR_THREAD, "wait context")
        return self._find()

    def _address(self, key: Hashable) -> int:
        if isinstance(key, int):
            if not 0 <= key <= _LAST_ADDRESS:
                message = f"{key} is no address: use any other hashable object as a key of your own"
                raise ValueError(message)
            return int(key)
        if key not in self._addresses:
            self._addresses[key] = ffi.new("char *")
        return int(ffi.cast("uintptr_t", self._addresses[key]))

    def set_wait_fd(
        self,
        key: Hashable,
        fd: int,
        custom_data: Any = None,  # noqa: ANN401 - anything, it is only kept
        cleanup: Cleanup | None = None,
    ) -> None:
        """Show an fd (ASYNC_WAIT_CTX_set_wait_fd(3)). Under a key that has one already, the new one hides the old one.

        Args:
            key: Any hashable object; an ``int`` is an address.
            fd: Open; it stays the caller's.
            custom_data: Kept, and given back by `get_fd`.
            cleanup: Called as ``cleanup(wait_context, key, fd, custom_data)`` when the context is freed while the fd is
                set, and never otherwise; ``wait_context`` is None where the garbage collector had to free it.

        Raises:
            BadDescriptorError: The fd is not open.
            WaitContextFreedError: There is no context (any more).
        """
        context = self._context
        try:
            os.fstat(fd)
        except (OSError, OverflowError, TypeError) as error:
            message = f"wait fd {fd!r} is not an open file descriptor: open it before it is set"
            raise BadDescriptorError(message) from error
        number, address = next(_numbers), self._address(key)
        check(lib.wait_set_fd(context, ffi.cast("void *", address), fd, number), "setting a wait fd")
        _entries[number] = _Entry(weakref.ref(self), key, custom_data, cleanup)
        self._set.setdefault(address, []).append(number)

    def get_fd(self, key: Hashable) -> WaitFd:
        """Return what is set under a key (ASYNC_WAIT_CTX_get_fd(3)).

        Raises:
            UnknownWaitKeyError: Nothing is.
            WaitContextFreedError: There is no context (any more).
        """
        fd, custom, address = ffi.new("int *"), ffi.new("uintptr_t *"), self._address(key)
        if lib.wait_get_fd(self._context, ffi.cast("void *", address), fd, custom) != lib.SHIM_OK:
            raise _unknown(key)
        entry = _entries.get(custom[0])
        ours = entry is not None and custom[0] in self._set.get(address, ())
        return WaitFd(fd[0], entry.custom_data if entry is not None and ours else custom[0])

    def clear_fd(self, key: Hashable) -> None:
        """Show an fd no more (ASYNC_WAIT_CTX_clear_fd(3)); it is not closed, and the cleanup routine does not run.

        Raises:
            UnknownWaitKeyError: Nothing is set under this key.
            WaitContextFreedError: There is no context (any more).
        """
        address = self._address(key)
        if lib.wait_clear_fd(self._context, ffi.cast("void *", address)) != lib.SHIM_OK:
            raise _unknown(key)
        numbers = self._set.get(address)
        if numbers:
            _entries.pop(numbers.pop(), None)

    def get_all_fds(self) -> tuple[int, ...]:
        """List the fds that are set (ASYNC_WAIT_CTX_get_all_fds(3)), the newest first; none without a context."""
        context = self._looked_up()
        if context == ffi.NULL:
            return ()
        count = lib.wait_all_fds(context, ffi.NULL, 0)
        out = ffi.new("int[]", count)
        lib.wait_all_fds(context, out, count)
        return tuple(out)

    def get_changed_fds(self) -> ChangedFds:
        """Tell what changed since the job was last resumed (ASYNC_WAIT_CTX_get_changed_fds(3)); see `ChangedFds`.

        OpenSSL forgets the changes only when a paused job is resumed: after a job has ended they are still told.
        """
        context = self._looked_up()
        if context == ffi.NULL:
            return ChangedFds((), ())
        added_count, deleted_count = ffi.new("size_t *"), ffi.new("size_t *")
        lib.wait_changed_fds(context, ffi.NULL, added_count, ffi.NULL, deleted_count)
        added, deleted = ffi.new("int[]", added_count[0]), ffi.new("int[]", deleted_count[0])
        if added_count[0] or deleted_count[0]:
            lib.wait_changed_fds(context, added, added_count, deleted, deleted_count)
        return ChangedFds(tuple(added), tuple(deleted))

    def set_status(self, status: int) -> None:
        """Set what an engine tells of itself (ASYNC_WAIT_CTX_set_status(3)): a `WaitStatus`.

        Raises:
            ValueError: No such status.
            WaitContextFreedError: There is no context (any more).
        """
        check(lib.wait_set_status(self._context, WaitStatus(status)), "setting a wait context's status")

    def get_status(self) -> int:
        """Return what an engine told of itself (ASYNC_WAIT_CTX_get_status(3)), a `WaitStatus`; UNSUPPORTED: nothing.

        Raises:
            WaitContextFreedError: There is no context (any more).
        """
        return int(lib.wait_get_status(self._context))

    def set_callback(self, callback: Callable[..., object] | None, *args: Any) -> None:  # noqa: ANN401 - the callback's
        """Be called back, instead of (or beside) waiting for fds (ASYNC_WAIT_CTX_set_callback(3)).

        Engines that know callbacks use no fd then; the shim's own signal both. The engine only counts and makes
        `callback_fd` readable: ``callback(*args)`` is called by `run_callbacks`.

        Args:
            callback: What means "resume the job"; None: no callback any more.
            args: Its arguments.

        Raises:
            OSError: No file descriptor is to be had.
            WaitContextFreedError: There is no context (any more).
        """
        context = self._context
        if callback is not None and self._signal == ffi.NULL:
            signal = lib.wait_signal_new()
            if signal == ffi.NULL:
                raise_status(lib.SHIM_ERR_SYSTEM, "setting a callback")
            self._signal = ffi.gc(signal, lib.wait_signal_free)
        signal = ffi.NULL if callback is None else self._signal
        check(lib.wait_set_callback(context, signal), "setting a callback")
        self._callback = None if callback is None else (callback, args)

    def get_callback(self) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
        """Return the callback and its arguments (ASYNC_WAIT_CTX_get_callback(3)); None: there is none of Python's."""
        return self._callback

    @property
    def callback_fd(self) -> int:
        """Readable when an engine has called back; -1 as long as no callback was set."""
        return -1 if self._signal == ffi.NULL else int(lib.wait_signal_fd(self._signal))

    def run_callbacks(self) -> int:
        """Call the callback once if the engine has called back since the last time.

        Returns:
            How often the engine has.
        """
        count = 0 if self._signal == ffi.NULL else int(lib.wait_signal_take(self._signal))
        if count and self._callback is not None:
            callback, args = self._callback
            callback(*args)
        return count


class WaitContext(WaitContextView):
    """A wait context of one's own (ASYNC_WAIT_CTX_new(3)), for one job at a time. A context manager: leaving frees it.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """

    def __init__(self) -> None:
        linkage.attach()
        super().__init__()
        self._own: Any = ffi.NULL
        self._user: object | None = None
        context = lib.wait_new()
        if context == ffi.NULL:
            raise_status(lib.SHIM_ERR_MEMORY, "making a wait context")
        self._own = ffi.gc(context, lib.wait_free)

    def _find(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        if self._own == ffi.NULL:
            message = "the wait context is freed: make another"
            raise WaitContextFreedError(message)
        return lib.wait_raw(self._own)

    @property
    def busy(self) -> bool:
        """Whether a job uses it."""
        return self._user is not None

    def take(self, user: object) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """Become busy: for :class:`Job`.

        Raises:
            BusyError: Another job uses it.
            WaitContextFreedError: It is freed.
            WrongThreadError: Another thread made it.
        """
        self._looked_up()
        if self._user not in (None, user):
            message = "the wait context is used by another job: one job at a time"
            raise BusyError(message)
        self._user = user
        return self._own

    def give_back(self, user: object) -> None:
        """Be free for the next job. Does nothing for another user's."""
        if self._user is user:
            self._user = None

    def free(self) -> None:
        """Free it, once; the cleanup routines of the fds that are set run now. Freeing it again does nothing.

        Raises:
            BusyError: A job uses it; nothing is freed.
        """
        if self.busy:
            message = "the wait context is used by a job: end the job before"
            raise BusyError(message)
        own, self._own = self._own, ffi.NULL
        if own != ffi.NULL:
            ffi.release(own)
        self._callback, self._signal = None, ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.free()


def free_all() -> None:
    """At exit: free what is left, so that its cleanup routines run while Python still can; later ones never do."""
    for entry in tuple(_entries.values()):
        context = entry.context()
        if isinstance(context, WaitContext) and not context.busy:
            context.free()
    lib.wait_on_cleanup(ffi.NULL)


def _unknown(key: Hashable) -> UnknownWaitKeyError:
    message = f"no wait fd is set under the key {key!r}"
    return UnknownWaitKeyError(message)
