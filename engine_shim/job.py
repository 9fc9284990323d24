"""Jobs: private-key operations outside TLS that pause instead of blocking (``man 3 ASYNC_start_job``).

A handshake runs its jobs by itself; this is for everything else that signs with a slow key, such as a thousand
documents on one thread. What runs on the job's stack is C: no frame of Python's ever stands there.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from engine_shim import linkage, paused
from engine_shim.errors import JobNotFinishedError
from engine_shim.key import UNSET, Key, signature_parameters
from engine_shim.native import check, ffi, lib, raise_status
from engine_shim.wait import WaitContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Job", "JobStatus", "cleanup_thread", "init_thread", "is_capable"]


_MOST_JOBS = 2**31 - 1  # OpenSSL keeps the number in an int


class JobStatus(IntEnum):
    """What starting or resuming a job came to: ASYNC_start_job(3), with its numbers."""

    NO_JOB = 1
    PAUSED = 2
    FINISHED = 3


def _sign(*, digest: str | None = "SHA256", padding: str | None = None) -> tuple[Any, ...]:
    return (lib.JOB_SIGN, *signature_parameters(digest, padding), 0)


def _decrypt(*, version: int = 0x0303) -> tuple[Any, ...]:
    return (lib.JOB_DECRYPT, ffi.NULL, UNSET, UNSET, version)


_OPERATIONS: dict[object, Callable[..., tuple[Any, ...]]] = {Key.sign: _sign, Key.decrypt_premaster: _decrypt}


class Job:
    """One operation of a private key as an ASYNC_JOB. One thread: the one that made it.

    Start it; while it is paused, wait until one of the wait context's fds is readable (or its callback was called) and
    start it again, which resumes it; take the result when it is finished. Readable means "resume", not "finished". A
    context manager: leaving cancels what still runs.

    Args:
        operation: ``key.sign`` or ``key.decrypt_premaster`` of a :class:`Key`.
        data: What the operation takes, copied.
        wait_context: Where the job says what it waits for, free from its end on; None: one of its own.
        block_pause: Run with pausing blocked (ASYNC_block_pause(3)): it waits on this thread where its engine can
            block, and fails with NoJobError where it cannot.
        options: The operation's other arguments, such as ``digest`` and ``padding``.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
        TypeError: Not an operation of a key, or not its arguments.
        ValueError: An argument is unknown to the operation.
    """

    def __init__(
        self,
        operation: Callable[..., bytes],
        data: bytes,
        wait_context: WaitContext | None = None,
        *,
        block_pause: bool = False,
        **options: Any,  # noqa: ANN401 - the operation's
    ) -> None:
        linkage.attach()
        key = getattr(operation, "__self__", None)
        translate = _OPERATIONS.get(getattr(operation, "__func__", None))
        if not isinstance(key, Key) or translate is None:
            message = f"a job runs the sign or decrypt_premaster of an engine_shim.Key, not {operation!r}"
            raise TypeError(message)
        arguments = translate(**options)
        self._owns_context = wait_context is None
        self.wait_context = WaitContext() if wait_context is None else wait_context
        self._key = key
        self._handle: Any = None
        self._prepared: tuple[Any, ...] = (*arguments, bytes(memoryview(data)), block_pause)

    def start(self) -> JobStatus:
        """Start the job, or resume it.

        Returns:
            PAUSED: wait, and call it again. FINISHED: see `result`. NO_JOB: this thread's pool is exhausted
            (`init_thread`); nothing was started, call it again when another job has ended.

        Raises:
            BusyError: The wait context is used by another job.
            ForkedError: It was started before a fork, in the parent.
            ShimError: OpenSSL could not make a job.
            WaitContextFreedError: The wait context is freed.
            WrongThreadError: It was started on another thread.
        """
        if self._handle is None:
            self._handle = self._make(self.wait_context.take(self))
        elif not lib.job_is_paused(self._handle) and not self._is_finished():
            self.wait_context.take(self)
        status = lib.job_run(self._handle)
        if status < 0:  # refused: another thread's, who may be running it, or the parent's
            raise_status(-status, "starting a job")
        self._follow()
        if not status:
            raise_status(lib.SHIM_ERR_OPENSSL, "starting a job")
        return JobStatus(status)

    def _make(self, context: Any) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        *arguments, data, blocked = self._prepared
        handle = lib.job_new(self._key._handle, *arguments, ffi.from_buffer(data), len(data), context, blocked)  # noqa: SLF001 - both are ours
        if handle == ffi.NULL:
            self.wait_context.give_back(self)
            raise_status(lib.SHIM_ERR_MEMORY, "making a job")
        self._prepared = ()  # C has a copy
        return ffi.gc(handle, lib.job_free)

    def _follow(self) -> None:
        """A paused job keeps itself, its wait context busy, and both out of the garbage collector's reach."""
        if lib.job_is_paused(self._handle):
            paused.keep(self)
            return
        paused.let_go(self)
        self.wait_context.give_back(self)
        if self._owns_context and self._is_finished():
            self.wait_context.free()

    def _is_finished(self) -> bool:
        return self._handle is not None and bool(lib.job_is_finished(self._handle))

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self._handle is not None and bool(lib.job_is_paused(self._handle))

    @property
    def finished(self) -> bool:
        """Whether it has come to its end, and has a result or an error."""
        return self._is_finished()

    def result(self) -> bytes:
        """Return what the operation returns.

        Raises:
            JobNotFinishedError: The job has not come to its end.
            EngineError: The engine is closed, the operation failed, or the job was cancelled.
            OSError: No file descriptor was to be had for its wait fd.
            ShimError: OpenSSL refused.
        """
        if not self._is_finished():
            message = "the job has not finished: start it again when a wait fd is readable"
            raise JobNotFinishedError(message)
        status = lib.job_status(self._handle)
        if status == lib.SHIM_ERR_SYSTEM:
            number = lib.job_system_error(self._handle)
            raise OSError(number, f"the job: {os.strerror(number)}")
        if status != lib.SHIM_OK:
            raise_status(status, "the job", ffi.string(lib.job_reason(self._handle)).decode(errors="replace"))
        size = lib.job_output(self._handle, ffi.NULL, 0)
        out = ffi.new("unsigned char[]", size)
        lib.job_output(self._handle, out, size)
        return bytes(ffi.buffer(out, size))

    def cancel(self) -> None:
        """Cancel its op and all later ones: resumed, the job fails. A third party's engine cannot be cancelled."""
        if self._handle is not None:
            lib.job_cancel(self._handle)

    def close(self) -> bool:
        """Cancel, and resume a paused job so that it ends.

        Returns:
            Whether it has. False: a third party's engine goes on; call again when a wait fd is readable.

        Raises:
            WrongThreadError: It is paused and was started on another thread.
        """
        if self._handle is None:
            if self._owns_context:
                self.wait_context.free()
            return True
        status = lib.job_close(self._handle)
        if status != lib.SHIM_ERR_THREAD:
            self._follow()
        if status == lib.SHIM_ERR_BUSY:
            return False
        check(status, "closing a job")
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "paused" if self.paused else "finished" if self.finished else "not started"
        return f"<Job {state} of {self._key!r}>"


def is_capable() -> bool:
    """Tell whether this OpenSSL has jobs on this platform (ASYNC_is_capable(3)).

    Raises:
        LinkageError: OpenSSL cannot be reached; where it has no jobs, this is among the reasons.
    """
    linkage.attach()
    return bool(lib.thread_jobs_capable())


def init_thread(max_jobs: int = 0, initial: int = 0) -> None:
    """Set this thread's pool of jobs anew (ASYNC_init_thread(3)).

    Args:
        max_jobs: The most jobs that may run or be paused at once on this thread; 0: no bound, which is the default.
        initial: How many to make now; not more than ``max_jobs``, so without a bound 0.

    Raises:
        BusyError: A job of this thread is paused; nothing was changed.
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL has no memory left.
        ValueError: A number is out of range.
    """
    linkage.attach()
    if not 0 <= initial <= max_jobs <= _MOST_JOBS:
        message = f"a pool of {max_jobs} jobs, {initial} at first: give 0 to {_MOST_JOBS}, no more at first"
        raise ValueError(message)
    _check_pool(lib.thread_jobs_init(max_jobs, initial))


def cleanup_thread() -> None:
    """Free this thread's pool of jobs (ASYNC_cleanup_thread(3)); its next job makes a new one, without a bound.

    Raises:
        BusyError: A job of this thread is paused; nothing was changed.
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    _check_pool(lib.thread_jobs_cleanup())


def _check_pool(status: int) -> None:
    check(status, "changing this thread's pool of jobs")
