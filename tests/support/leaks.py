"""What a test left behind: file descriptors, Python threads, and threads that Python does not know."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Holdings(NamedTuple):
    """What this process holds.

    Attributes:
        descriptors: Number and target of each open file descriptor.
        threads: Names of Python's threads.
        tasks: How many threads the kernel counts.
    """

    descriptors: dict[int, str]
    threads: tuple[str, ...]
    tasks: int


def holdings() -> Holdings:
    """Look at what this process holds now, after a garbage collection."""
    gc.collect()
    names = sorted(thread.name for thread in threading.enumerate())
    return Holdings(_descriptors(), tuple(names), len(list(Path("/proc/self/task").iterdir())))


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            found[int(entry.name)] = str(entry.readlink())
    return found


def complaint(before: Holdings, after: Holdings) -> str:
    """Say what was left behind; empty when nothing was.

    Args:
        before: What was held at first.
        after: What is held now.
    """
    left = {fd: target for fd, target in after.descriptors.items() if before.descriptors.get(fd) != target}
    parts = []
    if left:
        parts.append(f"open file descriptors: {left}")
    if after.threads != before.threads:
        parts.append(f"threads: {before.threads} before, {after.threads} after")
    elif after.tasks > before.tasks:
        parts.append(f"threads of the kernel: {before.tasks} before, {after.tasks} after")
    return "; ".join(parts)
