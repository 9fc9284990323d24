"""Worker threads that call a plain function for each request of a signer.

Facts
- A function may take as long as it likes, and may never return. Nothing ends a thread of Python's from outside.
- Whoever forks should have few threads.

Decision
- Threads are daemons: the process ends without them. There is one at first; whoever takes a request while nobody is
  left to take the next one starts another, up to the bound.
- One more thread is told which requests have ended meanwhile. A worker whose request has passed its deadline counts as
  lost, and another one may take its place; there are never more than twice as many as wanted. One that comes back after
  all ends, if it is one too many.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from typing import TYPE_CHECKING

from engine_shim import EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import SignerEngine, SignRequest
    from tlsserver.signers.callable_calls import Call, Calls

__all__ = ["WorkerThreads"]

logger = logging.getLogger(__name__)

_MOST = 2  # times the threads that are wanted, with those that are lost


class WorkerThreads:
    """Takes a signer's requests until it is closed.

    Args:
        signer: Whose requests.
        function: Answers one.
        calls: What becomes of the answers.
        threads: How many at once.

    Raises:
        OSError: No descriptor is to be had.
        RuntimeError: No thread is to be had.
    """

    def __init__(
        self, signer: SignerEngine, function: Callable[[SignRequest], object], calls: Calls, threads: int
    ) -> None:
        self._signer = signer
        self._function = function
        self._calls = calls
        self._wanted = threads
        self._lock = threading.Lock()
        self._closing = threading.Event()
        # Under the lock.
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._running: dict[int, Call] = {}
        self._lost: set[int] = set()
        self._watcher = threading.Thread(target=self._watch, args=(signer.ended_fileno(),), daemon=True)
        self._watcher.name = f"tls-{calls.name}-watch"
        self._watcher.start()
        with self._lock:
            first = self._reserve()
        self._start(first)

    def close(self, timeout: float) -> bool:
        """Wait for the threads to end; the signer is closed already.

        Returns:
            Whether all of them have, within so many seconds.
        """
        self._closing.set()
        until = time.monotonic() + timeout
        with self._lock:
            others = [*self._threads, self._watcher]
        others = [thread for thread in others if thread is not threading.current_thread()]
        for thread in others:
            thread.join(max(until - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in others)

    def _reserve(self) -> threading.Thread:
        """Make a thread, and count it already. Under the lock."""
        thread = threading.Thread(target=self._work, name=f"tls-{self._calls.name}", daemon=True)
        self._threads.add(thread)
        self._idle += 1
        return thread

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.discard(thread)
                self._idle -= 1
            raise

    def _start_another(self) -> None:
        """Start one more, if nobody is left to take the next request and the bounds allow it."""
        thread = None
        with self._lock:
            useful = len(self._threads) - len(self._lost)
            is_short = self._idle == 0 and useful < self._wanted and not self._closing.is_set()
            is_full = len(self._threads) >= self._wanted * _MOST
            if is_short and not is_full:
                thread = self._reserve()
        if thread is not None:
            try:
                self._start(thread)
            except RuntimeError as error:
                self._calls.tell("thread", f"no more threads are to be had: {error}")
        elif is_short:
            self._calls.tell("lost", f"{self._wanted} of its threads do not return, and no more are started")

    def _work(self) -> None:
        try:
            while self._serve_next():
                pass
        except EngineClosedError:
            pass
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _serve_next(self) -> bool:
        """Wait for a request and answer it; false: this thread is one too many."""
        request = self._signer.take(timeout=None)
        if request is None:
            return True
        with self._lock:
            self._idle -= 1
        self._start_another()
        call = self._calls.begin(request)
        if call is not None:
            self._serve(call)
        with self._lock:
            is_needed = len(self._threads) - len(self._lost) <= self._wanted
            self._idle += is_needed
        return is_needed

    def _serve(self, call: Call) -> None:
        number = call.request.id
        with self._lock:
            self._running[number] = call
        try:
            while (pause := self._try(call)) is not None:
                self._closing.wait(pause)
                if not call.begin():
                    break
        finally:
            with self._lock:
                del self._running[number]
                self._lost.discard(number)

    def _try(self, call: Call) -> float | None:
        if not call.request.is_open:  # it has ended before the watcher could know of it
            call.ended()
            return None
        try:
            answer = self._function(call.request)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it costs this handshake only, and is told
            return call.raised(error)
        return call.returned(answer)

    def _watch(self, fd: int) -> None:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        try:
            while True:
                waiting.poll()
                self._ended(self._signer.take_ended())
        except EngineClosedError:
            pass

    def _ended(self, numbers: tuple[int, ...] | None) -> None:
        with self._lock:
            if numbers is None:
                numbers = tuple(number for number, call in self._running.items() if not call.request.is_open)
            calls = [self._running[number] for number in numbers if number in self._running]
        now = time.monotonic()
        for call in calls:
            call.ended()
            if now >= call.request.deadline:
                self._lose(call.request.id)

    def _lose(self, number: int) -> None:
        with self._lock:
            if number in self._running:  # else the function has returned just now
                self._lost.add(number)
        self._start_another()
