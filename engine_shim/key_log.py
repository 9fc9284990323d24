"""The secrets of a Context's handshakes in a file, in the form that Wireshark reads (RFC 9850)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.errors import ShimError
from engine_shim.native import check, context_address, ffi, lib

if TYPE_CHECKING:
    from pathlib import Path

    from OpenSSL import SSL

__all__ = ["write_key_log"]

# No link: in a folder that others may write to, it would let them choose the file. Not to wait at a FIFO, for the loop.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def write_key_log(context: SSL.Context, path: str | Path) -> bool:
    """Append the secrets of each handshake to a file, which is made for its owner alone.

    C writes them, a line at a time. A line that cannot be written is counted (`engine_shim.Counters`), said once on
    standard error, and costs no handshake. Contexts that write to one file share its descriptor.

    Args:
        context: Before its first Connection.
        path: A regular file of this user's (or root's) that others cannot read, or a new one.

    Returns:
        Whether no other Context of this process wrote to the file yet.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        OSError: The file cannot be opened.
        ShimError: It is not to be trusted with secrets.
    """
    linkage.attach()
    fd = os.open(path, _FLAGS, 0o600)
    try:
        _check(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    is_new = ffi.new("int *")
    address = context_address(context)
    check(lib.key_log_use(address, fd, os.fsencode(path), is_new), f"key log {path}")
    return bool(is_new[0])


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ShimError("it is no regular file, and writing may have to wait: name a file")
    if found.st_uid not in (os.geteuid(), 0):
        raise ShimError("it is another user's, who could read the secrets: name a file of your own")
    if found.st_mode & 0o007:
        raise ShimError("other users can read or write it, and it gets secrets: chmod 600, or name a new file")
