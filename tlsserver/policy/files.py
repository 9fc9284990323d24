"""Files that settings name. A leaf but for the errors."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Stamp", "readable", "stamp"]

# Device, inode, size and time of the last change in nanoseconds; None: there is no such file.
Stamp = tuple[int, int, int, int] | None


@contextmanager
def readable(what: str, path: object) -> Iterator[None]:
    """Say which file it is that cannot be read.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        yield
    except OSError as error:
        message = f"{what} {path}: {error.strerror}: give the path of a file that this process may read"
        raise ConfigurationError(message) from error


def stamp(file: str | Path) -> Stamp:
    """Return what differs when the file, or what its links lead to, has changed (stat(2))."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
