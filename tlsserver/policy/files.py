"""Files that settings name. A leaf but for the errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["readable"]


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
