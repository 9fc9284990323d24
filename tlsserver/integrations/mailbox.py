"""Where answers for a thread that waits are put, from any thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tlsserver.wakeup import WakePipe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Mailbox"]


class Mailbox:
    """Calls that are to be made on one thread. It costs two descriptors from the first `open` to `close`."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._pipe: WakePipe | None = None

    @property
    def fd(self) -> int | None:
        """Readable when there are calls; None: it is not open."""
        return None if self._pipe is None else self._pipe.read_fd

    def open(self) -> None:
        """Have a descriptor to wait for. The thread's only. Idempotent."""
        if self._pipe is None:
            self._pipe = WakePipe()

    def post(self, call: Callable[[], object]) -> None:
        """Have it called; nothing happens once the mailbox is closed. Any thread."""
        self._calls.append(call)
        pipe = self._pipe
        if pipe is not None:
            pipe.wake()

    def run(self) -> None:
        """Make the calls. The thread's only."""
        if self._pipe is not None:
            self._pipe.drain()
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Free the descriptors. The thread's only. Idempotent."""
        if self._pipe is not None:
            self._pipe.close()
        self._calls.clear()
