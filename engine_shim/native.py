"""The C half, and the one place where its results become exceptions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from engine_shim import errors
from engine_shim._native import ffi, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["address_of", "check", "context_address", "ffi", "lib", "raise_status", "ssl_address"]

_EXCEPTIONS: dict[int, tuple[type[Exception], str]] = {
    lib.SHIM_ERR_MEMORY: (MemoryError, "out of memory"),
    lib.SHIM_ERR_OPENSSL: (errors.ShimError, "OpenSSL refused"),
    lib.SHIM_ERR_CLOSED: (errors.EngineClosedError, "the engine is closed"),
    lib.SHIM_ERR_NO_JOB: (
        errors.NoJobError,
        "no job to pause, and this engine cannot block: use the key in a handshake, or an engine with can_block",
    ),
    lib.SHIM_ERR_CANCELLED: (errors.OperationCancelledError, "the connection was cancelled"),
    lib.SHIM_ERR_FAILED: (errors.OperationFailedError, "the operation failed in its engine"),
    lib.SHIM_ERR_PASSWORD: (errors.KeyPasswordError, "the private key is encrypted: its password is missing or wrong"),
    lib.SHIM_ERR_KEY: (errors.KeyLoadError, "no private key (PEM or DER) could be read"),
    lib.SHIM_ERR_KEY_TYPE: (errors.KeyLoadError, "this kind of private key cannot be used in an engine"),
    lib.SHIM_ERR_BUSY: (errors.BusyError, "a job is paused: only the same call with the same buffer may follow"),
    lib.SHIM_ERR_THREAD: (errors.WrongThreadError, "belongs to another thread: a job resumes where it was started"),
    lib.SHIM_ERR_FORKED: (errors.ForkedError, "made before a fork: it is the parent's, make a new one in the child"),
    lib.SHIM_ERR_RANGE: (IndexError, "out of range"),
    lib.SHIM_ERR_EXPIRED: (errors.OperationExpiredError, "nobody has answered the operation in time"),
    lib.SHIM_ERR_LATE: (errors.LateAnswerError, "nobody waits for this answer any more"),
    lib.SHIM_ERR_DOUBLE: (errors.DoubleAnswerError, "was answered before: the first answer holds"),
    lib.SHIM_ERR_WRONG: (errors.WrongAnswerError, "the answer is not right for the key and what it was asked"),
}


def raise_status(status: int, what: str = "", detail: str | None = None) -> NoReturn:
    """Raise the exception that a status of the shim stands for.

    Args:
        status: One of shim.h's ``enum shim_status``, not SHIM_OK.
        what: What was being done, put before the reason.
        detail: What OpenSSL said; None: what it said last on this thread.

    Raises:
        ShimError: Or MemoryError, OSError, IndexError where those say it better.
    """
    prefix = f"{what}: " if what else ""
    if status == lib.SHIM_ERR_SYSTEM:
        raise OSError(ffi.errno, f"{prefix}{os.strerror(ffi.errno)}")
    kind, text = _EXCEPTIONS[status]
    if detail is None:
        detail = ffi.string(lib.shim_last_error()).decode(errors="replace")
    if status not in _WITH_DETAIL:
        detail = ""
    detail = detail.removeprefix(text).removeprefix(": ")  # OpenSSL has our text for a reason of ours
    raise kind(f"{prefix}{text}{f' ({detail})' if detail else ''}")


_WITH_DETAIL = (lib.SHIM_ERR_OPENSSL, lib.SHIM_ERR_KEY, lib.SHIM_ERR_FAILED)


def check(status: int, what: str = "") -> None:
    """Raise unless ``status`` is SHIM_OK (see :func:`raise_status`)."""
    if status != lib.SHIM_OK:
        raise_status(status, what)


def address_of(foreign: Any) -> Any:  # noqa: ANN401 - cffi's objects have no types
    """Take over a pointer from pyOpenSSL's bindings, which are another FFI's.

    Args:
        foreign: A pointer of ``OpenSSL._util.ffi``.

    Returns:
        The same address as a ``void *`` of the shim's FFI. Borrowed: keep ``foreign``'s owner alive.
    """
    from OpenSSL._util import ffi as theirs  # noqa: PLC0415 - only here, and pyOpenSSL has no public way

    return ffi.cast("void *", int(theirs.cast("uintptr_t", foreign)))


def context_address(context: SSL.Context) -> Any:  # noqa: ANN401 - cffi's objects have no types
    """Return a Context's SSL_CTX, borrowed: pyOpenSSL has no public way to it."""
    return address_of(context._context)  # noqa: SLF001 - see above


def ssl_address(connection: SSL.Connection) -> Any:  # noqa: ANN401 - cffi's objects have no types
    """Return a Connection's SSL, borrowed: pyOpenSSL has no public way to it."""
    return address_of(connection._ssl)  # noqa: SLF001 - see above


def job_is_current() -> bool:
    """Tell whether this code runs on a job's stack, where no Python frame ever should."""
    return bool(lib.async_job_is_current())
