"""A loop for engines that do their I/O where they are waited for, where those who wait have no loop: worker threads."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from engine_shim import BaseEngine
from tlsserver.loop_engines import LoopEngines
from tlsserver.reactor import Reactor

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EngineThread"]


class EngineThread:
    """One thread for all workers, from the first engine that needs it. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: _Served | None = None

    def use(self, engines: Iterable[BaseEngine]) -> None:
        """Return when the engines among them that need a loop know of this one."""
        for engine in engines:
            if type(engine).join is not BaseEngine.join:
                self._running().use(engine)

    def close(self) -> None:
        """End the thread, and what the engines do there. Idempotent; also done at exit."""
        with self._lock:
            served, self._served = self._served, None
        if served is not None:
            served.finalizer()

    def _running(self) -> _Served:
        with self._lock:
            if self._served is None:
                self._served = _Served(self)
            return self._served


class _Served:
    """The thread while it runs."""

    def __init__(self, owner: EngineThread) -> None:
        self._reactor = reactor = Reactor()
        self._engines = LoopEngines(reactor)
        self._thread = threading.Thread(target=self._run, name="tlsserver engines", daemon=True)
        self._thread.start()
        self.finalizer = weakref.finalize(owner, _end, reactor, self._thread)

    def _run(self) -> None:
        try:
            self._reactor.run()
        finally:
            self._engines.leave()
            self._reactor.close()

    def use(self, engine: BaseEngine) -> None:
        joined = threading.Event()

        def join() -> None:
            try:
                self._engines.use(engine)
            finally:
                joined.set()

        self._reactor.call_soon_threadsafe(join)
        while not joined.wait(1) and self._thread.is_alive():
            pass


def _end(reactor: Reactor, thread: threading.Thread) -> None:
    reactor.stop()
    if thread is not threading.current_thread():  # the garbage collector may have come by there
        thread.join()
