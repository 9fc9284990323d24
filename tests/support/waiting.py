"""Waiting for file descriptors, whatever their numbers: select(2) ends at 1,023, a pool of wait fds may not."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Long enough for the slowest machine; a test that reaches it has failed.
PATIENCE = 30.0


def readable(fds: Iterable[int], seconds: float = 0.0) -> list[int]:
    """Return those that are readable, as soon as one is; none when the time is over.

    Args:
        fds: File descriptors.
        seconds: How long to wait; 0: not at all.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(seconds * 1000)]
