"""The reactor whose turns are callbacks of an asyncio loop."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers_reactor import open_pair

from support.aio import LOOPS, run, turns, until
from tlsserver.asyncio.reactor import LoopReactor
from tlsserver.reactor import EVENT_READ, EVENT_WRITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.parametrize("loop", LOOPS)]


def with_reactor(loop: str, main: Callable[[LoopReactor], Awaitable[None]]) -> None:
    """Run with a reactor on a loop, which it leaves before the loop is closed."""

    async def body() -> None:
        reactor = LoopReactor(asyncio.get_running_loop())
        try:
            await main(reactor)
        finally:
            reactor.leave_loop()
            reactor.close()

    run(loop, body)


@pytest.mark.parametrize("urgent", [True, False])
def test_events(loop: str, urgent: bool) -> None:
    async def main(reactor: LoopReactor) -> None:
        near, far = open_pair()
        seen: list[int] = []
        with near, far:
            registration = reactor.add(near.fileno(), EVENT_READ, seen.append, urgent=urgent)
            await turns(2)
            assert seen == []
            far.send(b"x")
            await until(lambda: EVENT_READ in seen)
            reactor.modify(registration, EVENT_WRITE)
            seen.clear()
            await until(lambda: EVENT_WRITE in seen)
            reactor.modify(registration, 0)
            await turns(2)
            seen.clear()
            await turns(2)
            assert seen == []
            reactor.modify(registration, EVENT_READ | EVENT_WRITE)
            await until(lambda: sum({*seen}) == EVENT_READ | EVENT_WRITE)
            reactor.remove(registration)
            reactor.remove(registration)

    with_reactor(loop, main)


def test_becoming_urgent(loop: str) -> None:
    async def main(reactor: LoopReactor) -> None:
        near, far = open_pair()
        seen: list[int] = []
        with near, far:
            registration = reactor.add(near.fileno(), EVENT_READ, seen.append)
            reactor.make_urgent(registration)
            reactor.make_urgent(registration)
            far.send(b"x")
            await until(lambda: seen)
            reactor.remove(registration)

    with_reactor(loop, main)


@pytest.mark.parametrize("urgent", [True, False])
def test_numbers_that_come_again(loop: str, urgent: bool) -> None:
    """A descriptor that was closed behind the reactor's back, and whose number is another's now."""

    async def main(reactor: LoopReactor) -> None:
        seen: list[str] = []
        read, write = os.pipe()
        old = reactor.add(read, EVENT_READ, lambda _: seen.append("old"), urgent=urgent)
        os.close(read)
        os.close(write)
        again, write = os.pipe()
        assert again == read
        new = reactor.add(again, EVENT_READ, lambda _: seen.append("new"), urgent=urgent)
        reactor.remove(old)
        os.write(write, b"x")
        await until(lambda: seen)
        await turns(3)
        assert set(seen) == {"new"}
        reactor.remove(new)
        os.close(again)
        os.close(write)

    with_reactor(loop, main)


def test_what_cannot_be_watched(loop: str, tmp_path: Any) -> None:
    async def main(reactor: LoopReactor) -> None:
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        with pytest.raises(OSError, match="Bad file descriptor"):
            reactor.add(read, EVENT_READ, print)
        with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="not permitted"):
            reactor.add(file.fileno(), EVENT_READ, print)

    with_reactor(loop, main)


def test_calls(loop: str) -> None:
    async def main(reactor: LoopReactor) -> None:
        seen: list[Any] = []
        reactor.call_soon(seen.append, 1)
        reactor.call_soon(seen.append, 2)
        assert seen == []
        await until(lambda: len(seen) == 2)
        thread = threading.Thread(target=reactor.call_soon_threadsafe, args=(seen.append, 3))
        thread.start()
        await until(lambda: len(seen) == 3)
        thread.join()
        assert seen == [1, 2, 3]

    with_reactor(loop, main)


def test_a_callback_that_fails(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(reactor: LoopReactor) -> None:
        seen: list[int] = []
        reactor.call_soon(int, "no number")
        reactor.call_soon(seen.append, 1)
        await until(lambda: seen)

    with_reactor(loop, main)
    assert "a callback of the loop failed" in caplog.text


def test_timers_are_never_early(loop: str) -> None:
    """uvloop's may be, by half a millisecond."""

    async def main(reactor: LoopReactor) -> None:
        late: list[float] = []
        start = reactor.time()
        delays = [number * 0.00037 for number in range(60, 0, -1)]
        for delay in delays:
            reactor.call_at(start + delay, lambda when: late.append(reactor.time() - when), start + delay)
        dead = reactor.call_later(0.001, late.append, -1.0)
        dead.cancel()
        await until(lambda: len(late) == len(delays))
        assert min(late) >= 0

    with_reactor(loop, main)


def test_a_far_timer_gives_way_to_a_near_one(loop: str) -> None:
    async def main(reactor: LoopReactor) -> None:
        seen: list[str] = []
        reactor.call_later(1000, seen.append, "far")
        reactor.call_later(0.005, seen.append, "near")
        await until(lambda: seen)
        assert seen == ["near"]

    with_reactor(loop, main)


def test_no_turns_without_a_reason(loop: str) -> None:
    async def main(reactor: LoopReactor) -> None:
        ends: list[int] = []
        reactor.at_end_of_turn(lambda: ends.append(1))
        await turns(5)
        assert ends == []
        reactor.end_turn_soon()
        reactor.end_turn_soon()
        await turns(5)
        assert ends == [1]

    with_reactor(loop, main)


def test_the_backlog_leaves_time_for_others(loop: str) -> None:
    """What is not urgent and slow is spread over iterations."""

    async def main(reactor: LoopReactor) -> None:
        here = asyncio.get_running_loop()
        order: list[str] = []
        pairs = [open_pair() for _ in range(8)]
        busy = threading.Event()

        def slow(_: int) -> None:
            order.append("slow")
            busy.wait(0.003)

        registrations = [reactor.add(near.fileno(), EVENT_READ, slow) for near, _ in pairs]
        for _, far in pairs:
            far.send(b"x")

        def tick() -> None:
            order.append("tick")
            if order.count("slow") < 8:
                here.call_soon(tick)

        here.call_soon(tick)
        await until(lambda: order.count("slow") >= 8)
        text = "".join(one[0] for one in order)
        assert "sss" not in text, text
        for registration in registrations:
            reactor.remove(registration)
        for near, far in pairs:
            near.close()
            far.close()

    with_reactor(loop, main)


def test_goes_on_by_itself_when_it_has_left_the_loop(loop: str) -> None:
    async def main(reactor: LoopReactor) -> None:
        near, far = open_pair()
        seen: list[int] = []
        with near, far:
            registration = reactor.add(near.fileno(), EVENT_READ, seen.append, urgent=True)
            reactor.leave_loop()
            reactor.leave_loop()
            far.send(b"x")
            await turns(3)
            assert seen == []
            reactor.run_turn(1)
            assert seen == [EVENT_READ]
            reactor.remove(registration)

    with_reactor(loop, main)
