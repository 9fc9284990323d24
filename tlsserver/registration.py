"""One watched descriptor, as the loop and its owner know it. A leaf."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Registration", "is_open", "nobody"]


class Registration:
    """One watched descriptor, from `Reactor.add`. Its identity tells it from later owners of the same number.

    Attributes:
        fd: The descriptor.
        events: What is watched for.
        callback: Who is called.
        urgent: Its events are served first in each turn, and all of them.
    """

    __slots__ = ("callback", "events", "fd", "urgent")

    def __init__(self, fd: int, callback: Callable[[int], object], *, urgent: bool) -> None:
        self.fd = fd
        self.events = 0
        self.callback = callback
        self.urgent = urgent


def nobody(_events: int) -> None:
    """Who is called for a registration that was removed."""


def is_open(fd: int) -> bool:
    """Return whether the number is a descriptor's."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
