"""Drivers whose turn goes wrong: nobody else's connection waits for a turn that never comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.aio import LOOPS, run, turns
from tlsserver.asyncio.reactor import LoopReactor
from tlsserver.driver import Driver, Hub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.parametrize("loop", LOOPS)]


class Applied(Driver):
    """Is touched as any, and has no connection."""

    def __init__(self, hub: Hub, error: BaseException | None = None) -> None:
        self._hub = hub
        self._is_touched = False
        self.error = error
        self.count = 0

    def release(self, now: float) -> bool:
        del now
        self._is_touched = False
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.count += 1
        return False


def with_hub(loop: str, main: Callable[[Hub], Awaitable[None]]) -> None:
    async def body() -> None:
        reactor = LoopReactor(asyncio.get_running_loop())
        hub = Hub(reactor)
        reactor.at_end_of_turn(hub.apply)
        try:
            await main(hub)
        finally:
            reactor.leave_loop()
            reactor.close()

    run(loop, body)


def test_an_error_of_ours_is_one_connections(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(hub: Hub) -> None:
        failing, waiting, later = Applied(hub, RuntimeError("our mistake")), Applied(hub), Applied(hub)
        failing.touch()
        waiting.touch()
        await turns(5)
        assert waiting.count == 1
        later.touch()
        await turns(5)
        assert later.count == 1
        assert not hub.touched

    with_hub(loop, main)
    assert "our mistake" in caplog.text


def test_an_interrupt_where_a_turn_is_asked_for(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(hub: Hub) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        interrupted = Applied(hub)
        with monkeypatch.context() as patched:
            patched.setattr(hub.reactor, "end_turn_soon", interrupt)
            with pytest.raises(KeyboardInterrupt):
                interrupted.touch()
        for driver in (Applied(hub), interrupted):
            driver.touch()
            await turns(5)
            assert driver.count == 1

    with_hub(loop, main)
