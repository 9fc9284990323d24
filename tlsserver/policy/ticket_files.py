"""Ticket keys in files that processes and machines share, in nginx's forms.

Facts
- nginx takes one key a file: 80 bytes (name, HMAC, AES-256) or 48 bytes (name, AES-128, HMAC); and several files, of
  which the first encrypts.
- Processes see a change at different times: a ticket under a key that one of them does not have yet is a full
  handshake there.

Decision
- Several keys may lie in one file, 80 bytes each, newest first, so that a rotation is one rename. 48 bytes are one key:
  240 would be three keys or five.
- A file that everybody can read is refused, as a private key should be: it is one.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine_shim import TicketKeys
from tlsserver.errors import ConfigurationError
from tlsserver.policy.ticket_source import TicketSource

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FileKeys", "add_key"]

logger = logging.getLogger(__name__)

_LONG, _SHORT = 80, 48
_NAME = 16
_MOST = 64  # of TicketKeys


class FileKeys(TicketSource):
    """Keys in one or more files. The first of the first file encrypts."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        """Read them.

        Raises:
            ConfigurationError: A file cannot be read, is open to others, or holds no keys.
        """
        super().__init__(TicketKeys())
        self.files = tuple(files)
        self._lock = threading.Lock()
        self._seen = self._look()
        self._load()

    def refresh(self) -> None:
        """Read them anew if they have changed; the last good keys stay if they cannot be used, which is said once."""
        with self._lock:
            look = self._look()
            if look == self._seen:
                return
            self._seen = look
            try:
                self._load()
            except ConfigurationError as error:
                logger.error("the last good ticket keys stay: %s", error)  # noqa: TRY400 - a user's mistake
            else:
                names = self.keys.names
                logger.info("ticket keys are reloaded: %d, the first is %s", len(names), names[0].hex())

    def _load(self) -> None:
        keys = [key for file in self.files for key in _keys_of(file)]
        try:
            self.keys.set(keys)
        except ValueError as error:
            raise ConfigurationError(f"ticket keys of {', '.join(map(str, self.files))}: {error}") from error
        finally:
            for key in keys:
                _wipe(key)

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(file) for file in self.files)


def _wipe(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))


def _stamp(file: str | Path) -> tuple[int, ...] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


def _keys_of(file: str | Path) -> list[bytearray]:
    """Return the keys in a file, newest first, to be wiped.

    Raises:
        ConfigurationError: It cannot be used.
    """
    content = _content(file)
    size = len(content)
    if size != _SHORT and (size == 0 or size % _LONG or size > _MOST * _LONG):
        raise ConfigurationError(
            f"ticket keys {file}: the file has {size} bytes, it must have 48 or 80, or 80 for each of up to {_MOST}"
            " keys: make one with `tlsserver gen-ticket-keys`"
        )
    keys = [content[at : at + _LONG] for at in range(0, size, _LONG)]
    _wipe(content)
    return keys


def _content(file: str | Path) -> bytearray:
    """Read as much as there may be, and one byte more."""
    content = bytearray(_MOST * _LONG + 1)
    try:
        # Not blocking: a pipe would hold us until somebody writes.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _refuse_open_to_others(file, os.fstat(descriptor).st_mode)
            del content[os.readv(descriptor, [content]) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(
            f"ticket keys {file}: {error.strerror}: give the path of a file that this process may read"
        ) from error
    return content


def _refuse_open_to_others(file: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"ticket keys {file}: this is no regular file: give one")
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigurationError(
            f"ticket keys {file}: everybody on this machine can read or write the file: chmod 600, and make new keys"
        )
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        logger.warning("ticket keys %s: the file's group can read or write it; who can, decrypts sessions", file)


def add_key(file: Path, keep: int) -> list[bytes]:
    """Put a new random key of 80 bytes first in a file, by a rename; it is made if it is not there.

    Args:
        file: Links are followed. Owner, group and mode stay; a new one is readable by its owner only.
        keep: How many of the keys that are there stay.

    Returns:
        The names of the keys, the first one first.

    Raises:
        ConfigurationError: What is there cannot be used, or the file cannot be written.
    """
    target = Path(os.path.realpath(file))  # Path.resolve() knows no error for links in a circle
    old = _keys_of(target) if os.path.lexists(target) else []
    if any(len(key) != _LONG for key in old):
        raise ConfigurationError(f"ticket keys {file}: a key of 48 bytes has no place beside others: name a new file")
    keys = [bytearray(secrets.token_bytes(_LONG)), *old[:keep]]
    try:
        _write(target, b"".join(keys), target.stat() if old else None)
    except OSError as error:
        raise ConfigurationError(
            f"ticket keys {file} cannot be written: {error.strerror}: name a place that you may write to"
        ) from error
    return [bytes(key[:_NAME]) for key in keys]


def _write(target: Path, content: bytes, before: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if before is not None:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
