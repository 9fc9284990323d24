"""SIGINT and SIGTERM for a loop on the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["stop_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(wakeup_fd: int, stop: Callable[[bool], object]) -> Iterator[None]:
    """Turn the signals into calls while the block runs; then the previous handlers are back.

    On another thread than the main one it does nothing: only the main thread gets signals (signal(7), and Python's
    rule).

    Args:
        wakeup_fd: A non-blocking pipe that wakes the loop, because a signal that comes just before the loop waits would
            otherwise be handled only when the loop wakes for another reason.
        stop: Called by each signal, with False for the first and True (at once) for all later ones. Runs between
            two byte codes of the main thread, so it must only pass the wish on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal seen
        seen += 1
        stop(seen > 1)

    previous_fd = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: installed by C code, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(previous_fd)
