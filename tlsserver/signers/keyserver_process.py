"""What keeps a key server's memory to itself: no core dump, no debugger, no swap, no privileges.

Linux only, like all of this package. What is not allowed here is told, not refused: a container may forbid half of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import resource
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["drop_privileges", "harden", "lock_memory"]

# prctl.h, mman.h
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> list[str]:
    """Forbid core dumps, debuggers of the same user (ptrace(2)) and new privileges. Files are made for the owner alone.

    To be called first, and once more when privileges were dropped: the kernel takes a part of it back then.

    Returns:
        What could not be had, one line each.
    """
    os.umask(0o077)
    return list(_refused())


def _refused() -> Iterator[str]:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        yield f"core dumps cannot be forbidden: {error}"
    for option, value, what in (
        (_PR_SET_DUMPABLE, 0, "debuggers of the same user cannot be kept out"),
        (_PR_SET_NO_NEW_PRIVS, 1, "new privileges cannot be forbidden"),
    ):
        if _libc.prctl(option, *(ctypes.c_ulong(one) for one in (value, 0, 0, 0))) != 0:
            yield f"{what}: {os.strerror(ctypes.get_errno())}"


def lock_memory() -> str | None:
    """Keep all memory, of now and of later, out of swap (mlockall(2)); before privileges are dropped.

    Only without a limit: under one, memory that does not fit would be refused later, in the middle of a signature.

    Returns:
        Why it could not be had; None: it is.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    advice = "memory may be swapped: give LimitMEMLOCK=infinity (systemd) or `ulimit -l unlimited`"
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except (OSError, ValueError):
        return advice
    if _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return None
    number = ctypes.get_errno()
    return advice if number in (errno.EPERM, errno.ENOMEM) else f"memory may be swapped: {os.strerror(number)}"


def drop_privileges(user: int | None, group: int | None) -> None:
    """Become another user, for good.

    Args:
        user: By number; None: nothing changes, unless ``group`` is given.
        group: By number; None: the user's own.

    Raises:
        ConfigurationError: It is not allowed.
    """
    if user is None and group is None:
        return
    try:
        entry = None if user is None else pwd.getpwuid(user)
    except KeyError:
        entry = None
    if group is None:
        if entry is None:
            raise ConfigurationError(f"user {user} has no group of its own on this machine: give --group as well")
        group = entry.pw_gid
    try:
        if entry is None:
            os.setgroups([group])
        else:
            os.initgroups(entry.pw_name, group)
        os.setresgid(group, group, group)
        if user is not None:
            os.setresuid(user, user, user)
    except OSError as error:
        raise ConfigurationError(
            f"privileges cannot be dropped: {error.strerror}; start as root, or leave --user and --group out"
        ) from error
