"""Tasks of an asyncio loop that await a coroutine function for each request of a signer.

All but the constructor and `close` belongs to the loop's thread. A task is cancelled when nobody waits for its request
any more: the client has left, the deadline has passed, or the signer is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from engine_shim import EngineClosedError
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine_shim import SignerEngine, SignRequest
    from tlsserver.signers.callable_calls import Call, Calls

__all__ = ["LoopTasks"]


class LoopTasks:
    """Takes a signer's requests until it is closed.

    Args:
        signer: Whose requests.
        function: Answers one.
        calls: What becomes of the answers.
        concurrency: How many at once.
        loop: Where; None: a loop on a thread of its own.

    Raises:
        ConfigurationError: The loop is closed.
        OSError: No descriptor is to be had.
    """

    def __init__(
        self,
        signer: SignerEngine,
        function: Callable[[SignRequest], Awaitable[object]],
        calls: Calls,
        concurrency: int,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._signer = signer
        self._function = function
        self._calls = calls
        self._concurrency = concurrency
        self._fds = (signer.fileno(), signer.ended_fileno())
        self._tasks: dict[int, tuple[Call, asyncio.Task[None]]] = {}
        self._is_full = False
        self._is_over = False
        self._over = threading.Event()
        self._loop = asyncio.new_event_loop() if loop is None else loop
        self._thread: threading.Thread | None = None
        if loop is None:
            self._thread = threading.Thread(target=self._run, name=f"tls-{calls.name}", daemon=True)
            self._thread.start()
        try:
            self._loop.call_soon_threadsafe(self._attach)
        except RuntimeError as error:
            message = f"the event loop of signer {calls.name} is closed: give one that runs"
            raise ConfigurationError(message) from error

    def close(self, timeout: float) -> bool:
        """Wait for the tasks to end; the signer is closed already. On the loop's own thread they end soon after.

        Returns:
            Whether all of them have, within so many seconds.
        """
        is_idle = self._thread is None and not self._loop.is_running()
        if is_idle or self._is_here():
            self._detach()
        else:
            self._wait_over(timeout)
        return not self._tasks

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _wait_over(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        self._over.wait(timeout)
        if self._thread is not None:
            self._thread.join(max(until - time.monotonic(), 0))

    def _run(self) -> None:
        """Be the thread of the signer's own loop, which no task can end."""
        while not self._over.is_set():
            with contextlib.suppress(SystemExit, KeyboardInterrupt):  # told by its call
                self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _attach(self) -> None:
        if not self._is_over:
            self._loop.add_reader(self._fds[0], self._take)
            self._loop.add_reader(self._fds[1], self._take_ended)

    def _detach(self) -> None:
        """Watch no more, and cancel what is under way."""
        if self._is_over:
            return
        self._is_over = True
        if not self._loop.is_closed():
            for fd in self._fds:
                self._loop.remove_reader(fd)
            for _, task in self._tasks.values():
                task.cancel()
        self._maybe_end()

    def _maybe_end(self) -> None:
        if self._is_over and not self._tasks:
            self._over.set()
            if self._thread is not None:
                self._loop.stop()

    def _take(self) -> None:
        """Take what is there, as far as there is room."""
        try:
            while len(self._tasks) < self._concurrency:
                request = self._signer.take()
                if request is None:
                    return
                self._start(request)
        except EngineClosedError:
            self._detach()
            return
        self._is_full = True
        self._loop.remove_reader(self._fds[0])

    def _start(self, request: SignRequest) -> None:
        call = self._calls.begin(request)
        if call is not None:
            task = self._loop.create_task(self._serve(call))
            self._tasks[request.id] = (call, task)
            task.add_done_callback(lambda task: self._done(call, task))

    async def _serve(self, call: Call) -> None:
        while (pause := await self._try(call)) is not None:
            await asyncio.sleep(pause)
            if not call.begin():
                break

    async def _try(self, call: Call) -> float | None:
        try:
            answer = await self._function(call.request)
        except asyncio.CancelledError:
            raise  # `_done` sees it
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this handshake only, and is told
            return call.raised(error)
        except BaseException as error:
            call.raised(error)
            raise  # it ends whatever runs the loop, as from any task
        return call.returned(answer)

    def _done(self, call: Call, task: asyncio.Task[None]) -> None:
        del self._tasks[call.request.id]
        if task.cancelled():
            call.cancelled()
        else:
            task.exception()  # is known: asyncio must not tell it again
        if self._is_full and not self._is_over:
            self._is_full = False
            self._loop.add_reader(self._fds[0], self._take)
        self._maybe_end()

    def _take_ended(self) -> None:
        """Cancel what nobody waits for any more."""
        try:
            numbers = self._signer.take_ended()
        except EngineClosedError:
            self._detach()
            return
        if numbers is None:
            numbers = tuple(number for number, (call, _) in self._tasks.items() if not call.request.is_open)
        for number in numbers:
            if number in self._tasks:
                self._tasks[number][1].cancel()
