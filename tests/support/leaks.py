"""What a test left behind: file descriptors, Python threads, and threads that Python does not know.

Who waited for a thread (`Server.stop`, `Engine.close`, `Thread.join`) was told of its end by the thread itself, a
moment before the kernel lets go of it, and before OpenSSL frees what it kept for that thread, its pool of jobs. So
`settled` looks, and `wait_until` waits, for what ends soon and tells nobody.
"""

from __future__ import annotations

import gc
import select
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# Long enough for the slowest machine; a test that reaches it has failed.
PATIENCE = 30.0

_TASKS = Path("/proc/self/task")


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
    return Holdings(_descriptors(), tuple(names), _tasks())


def settled(before: Holdings) -> Holdings:
    """Look once there are no more threads than before, or for too long more of them."""
    wait_until(lambda: _tasks() <= before.tasks)
    return holdings()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does soon and does not tell; the caller looks whether it did."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        select.select([], [], [], 0.001)


def wait_ended(thread: threading.Thread) -> None:
    """Wait until the kernel, too, has let go of a thread."""
    wait_until(lambda: not (_TASKS / str(thread.native_id)).exists())


def _tasks() -> int:
    return len(list(_TASKS.iterdir()))


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            found[int(entry.name)] = str(entry.readlink())
    return found


def more_threads(before: Holdings, after: Holdings) -> Counter[str]:
    """Return the threads that are new; one of an earlier test, which was ending, may have gone meanwhile."""
    return Counter(after.threads) - Counter(before.threads)


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
    if more_threads(before, after):
        parts.append(f"threads: {before.threads} before, {after.threads} after")
    elif after.tasks > before.tasks:
        parts.append(f"threads of the kernel: {before.tasks} before, {after.tasks} after")
    return "; ".join(parts)
