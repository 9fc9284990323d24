"""An asyncio program on a thread of its own: servers of others, which a test's clients talk to."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support.running import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    Program = Callable[["LoopThread"], Awaitable[None]]

LOOPS = ("asyncio", "uvloop")


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make a loop by name, without our TLS."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return made


class LoopThread:
    """Runs a program until `stop` is set; a context manager.

    Args:
        program: Calls `started`, then serves until ``await self.stop.wait()`` comes back.
        make_loop: Its loop.

    Attributes:
        loop: The program's.
        stop: Set when the block ends.
        address: What the program has said.
        problems: What the loop's exception handler was told.
    """

    def __init__(self, program: Program, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._program = program
        self._make_loop = make_loop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop of a test", daemon=True)
        self._crash: BaseException | None = None
        self.address: Any = None
        self.problems: list[dict[str, Any]] = []

    def started(self, address: Any) -> None:
        """Be told where clients may connect."""
        self.address = address
        self._ready.set()

    @property
    def port(self) -> int:
        """Of the address."""
        found: int = self.address[1]
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        self._raise()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let the program end. Idempotent."""
        if self._thread.is_alive():
            self.call(self.stop.set)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._raise()

    def call(self, function: Callable[[], object]) -> None:
        """Call something on the loop, soon; nothing if it has ended."""
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            assert self.loop.is_closed()

    def ask(self, function: Callable[[], Any]) -> Any:
        """Call something on the loop, and return what it returns."""

        async def asked() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(asked(), self.loop).result(PATIENCE)

    def _run(self) -> None:
        try:
            self.loop = self._make_loop()
            self.loop.set_exception_handler(lambda _loop, problem: self.problems.append(problem))
            try:
                self.loop.run_until_complete(self._main())
            finally:
                self.loop.close()
        except BaseException as error:  # noqa: BLE001 - raised again on the test's thread
            self._crash = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self.stop = asyncio.Event()
        try:
            await self._program(self)
        finally:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _raise(self) -> None:
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash
