"""The selector loop, on every selector there is."""

from __future__ import annotations

import functools
import gc
import os
import selectors
import socket
import threading
import time
import weakref
from typing import Any

import pytest
from helpers_reactor import Calls, turns

from tlsserver.reactor import EVENT_READ, EVENT_WRITE, Reactor
from tlsserver.selector import load_selectors2

pytest_plugins = ("support.reactor_scene",)
pytestmark = pytest.mark.usefixtures("descriptors")


# Descriptors


def test_readiness(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    calls = Calls()
    registration = reactor.add(near.fileno(), EVENT_READ, calls)
    turns(reactor)
    assert calls == []
    far.send(b"x")
    reactor.run_turn(0)
    assert calls == [EVENT_READ]
    reactor.modify(registration, EVENT_READ | EVENT_WRITE)
    reactor.run_turn(0)
    assert calls[1:] == [EVENT_READ | EVENT_WRITE]
    reactor.modify(registration, EVENT_WRITE)
    reactor.run_turn(0)
    assert calls[2:] == [EVENT_WRITE]
    reactor.modify(registration, 0)
    turns(reactor)
    assert len(calls) == 3
    reactor.modify(registration, EVENT_READ)
    reactor.run_turn(0)
    assert calls[3:] == [EVENT_READ]
    reactor.remove(registration)
    reactor.remove(registration)
    reactor.modify(registration, EVENT_READ)
    turns(reactor)
    assert len(calls) == 4


def test_hang_up_is_reported_to_readers_and_writers(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    calls = Calls()
    registration = reactor.add(near.fileno(), EVENT_READ, calls)
    far.close()
    reactor.run_turn(0)
    assert calls == [EVENT_READ]
    reactor.modify(registration, EVENT_WRITE)
    reactor.run_turn(0)
    assert calls[1:] == [EVENT_WRITE]
    reactor.modify(registration, 0)
    turns(reactor)
    assert len(calls) == 2, "a hang-up nobody watches for must not spin"


def test_a_late_event_does_not_reach_the_new_owner(reactor: Reactor) -> None:
    """Both are readable; whoever comes first closes the other's descriptor and gets the same number again."""
    old: list[tuple[socket.socket, socket.socket]] = [socket.socketpair(), socket.socketpair()]
    registrations: list[Any] = [None, None]
    fresh: list[socket.socket] = []
    served = Calls()
    stranger = Calls()

    def serve(mine: int, _events: int) -> None:
        served(mine)
        other = 1 - mine
        number = old[other][0].fileno()
        reactor.remove(registrations[other])
        old[other][0].close()
        fresh.extend(socket.socketpair())
        while fresh[-2].fileno() != number:
            fresh.extend(socket.socketpair())
        reactor.add(number, EVENT_READ, stranger)

    for index, (near, far) in enumerate(old):
        far.send(b"x")
        registrations[index] = reactor.add(near.fileno(), EVENT_READ, functools.partial(serve, index))
    reactor.run_turn(0)
    assert len(served) == 1
    assert stranger == []
    reactor.close()
    for one in [*fresh, *(end for ends in old for end in ends)]:
        one.close()


def test_a_number_can_be_taken_over(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    former, present = Calls(), Calls()
    stale = reactor.add(near.fileno(), EVENT_READ, former)
    reactor.add(near.fileno(), EVENT_READ, present)
    reactor.modify(stale, EVENT_WRITE)
    reactor.remove(stale)
    far.send(b"x")
    reactor.run_turn(0)
    assert (former, present) == ([], [EVENT_READ])


def test_closed_without_remove_then_reused(reactor: Reactor) -> None:
    """epoll has forgotten the number, the selector has not: the new owner must still get its events."""
    near, far = socket.socketpair()
    number = near.fileno()
    stale = reactor.add(number, EVENT_READ, Calls())
    near.close()
    far.close()
    fresh = socket.socketpair()
    assert fresh[0].fileno() == number
    calls = Calls()
    reactor.add(number, EVENT_READ, calls)
    fresh[1].send(b"x")
    reactor.run_turn(0)
    assert calls == [EVENT_READ]
    reactor.remove(stale)
    reactor.run_turn(0)
    assert calls == [EVENT_READ, EVENT_READ]
    for one in fresh:
        one.close()


def test_no_system_call_when_nothing_changes(pair: tuple[socket.socket, socket.socket]) -> None:
    class Counting(selectors.DefaultSelector):
        changes = 0

        def register(self, *args: Any) -> Any:
            self.changes += 1
            return super().register(*args)

        def modify(self, *args: Any) -> Any:
            self.changes += 1
            return super().modify(*args)

        def unregister(self, *args: Any) -> Any:
            self.changes += 1
            return super().unregister(*args)

    counting = Counting()
    reactor = Reactor(counting)
    registration = reactor.add(pair[0].fileno(), EVENT_READ, Calls())
    before = counting.changes
    for _ in range(5):
        reactor.modify(registration, EVENT_READ)
        reactor.run_turn(0)
    assert counting.changes == before
    reactor.close()


def test_a_descriptor_that_cannot_be_watched_leaves_nothing_behind(tmp_path: Any) -> None:
    for make in (selectors.EpollSelector, load_selectors2().EpollSelector):
        reactor = Reactor(make())
        with (tmp_path / "file").open("w") as regular:
            for _ in range(2):
                with pytest.raises(PermissionError):
                    reactor.add(regular.fileno(), EVENT_READ, Calls())
        turns(reactor)
        reactor.close()


# Calls and deadlines


def test_call_soon_runs_in_order_and_not_in_this_turn(reactor: Reactor) -> None:
    calls = Calls()

    def first() -> None:
        calls("first")
        reactor.call_soon(calls, "third")

    reactor.call_soon(first)
    reactor.call_soon(calls, "second")
    reactor.run_turn()
    assert calls == ["first", "second"]
    reactor.run_turn()
    assert calls == ["first", "second", "third"]


def test_deadlines_come_in_order(reactor: Reactor) -> None:
    calls = Calls()
    now = reactor.time()
    for delay in (0.003, 0.001, 0.002, 0.001):
        reactor.call_at(now + delay, calls, delay)
    reactor.call_later(0.004, reactor.stop)
    reactor.run()
    assert calls == [0.001, 0.001, 0.002, 0.003]


def test_a_deadline_is_never_early(reactor: Reactor) -> None:
    due = time.monotonic() + 0.01
    late: list[float] = []
    reactor.call_at(due, lambda: late.append(time.monotonic() - due))
    reactor.call_at(due, reactor.stop)
    reactor.run()
    assert late[0] >= 0


def test_a_cancelled_deadline_never_runs(reactor: Reactor) -> None:
    calls = Calls()
    timers = [reactor.call_later(0, calls, number) for number in range(3)]
    timers[1].cancel()
    timers[1].cancel()
    reactor.call_later(0, timers[2].cancel)
    reactor.run_turn()
    assert calls == [0, 2]
    assert all(timer.cancelled() for timer in timers)
    timers[0].cancel()


def test_a_deadline_can_cancel_the_next_one_of_its_turn(reactor: Reactor) -> None:
    calls = Calls()
    now = reactor.time()
    second = reactor.call_at(now + 0.0002, calls, "second")
    reactor.call_at(now + 0.0001, second.cancel)
    reactor.call_at(now + 0.0003, reactor.stop)
    reactor.run()
    assert calls == []


def test_a_deadline_that_sets_itself_again_does_not_hold_the_turn(reactor: Reactor) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        reactor.call_at(0, again)

    again()
    reactor.run_turn()
    assert count == 2


def test_cancelled_deadlines_do_not_pile_up(reactor: Reactor) -> None:
    kept = [reactor.call_later(1000, print) for _ in range(10)]
    most = 0
    for _ in range(10_000):
        reactor.call_later(1000, print).cancel()
        most = max(most, len(reactor._timers))
    assert most < 200
    assert sum(not entry[2].cancelled() for entry in reactor._timers._heap) == len(kept)


def test_a_cancelled_deadline_holds_nothing(reactor: Reactor) -> None:
    class Big:
        def method(self) -> None: ...

    big = Big()
    dead = weakref.ref(big)
    timer = reactor.call_later(1000, big.method)
    timer.cancel()
    del big
    gc.collect()
    assert dead() is None


def test_waiting_ends_at_the_first_deadline_that_lives(reactor: Reactor) -> None:
    reactor.call_later(0.001, print).cancel()
    reactor.call_later(1000, print)
    assert reactor._patience(None) == pytest.approx(1000, abs=5)
    assert reactor._patience(3) == 3
    reactor.call_soon(print)
    assert reactor._patience(None) == 0


def test_end_of_turn_hooks_run_last_and_always(reactor: Reactor) -> None:
    calls = Calls()
    reactor.at_end_of_turn(lambda: calls("hook"))
    reactor.call_soon(calls, "soon")
    reactor.call_later(0, calls, "later")
    reactor.run_turn()
    reactor.run_turn(0)
    assert calls == ["later", "soon", "hook", "hook"]


def test_the_clock_is_read_once_a_turn(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    for _ in range(5):
        reactor.call_soon(lambda: seen.append(reactor.time()))
    reactor.call_soon(reactor.stop)
    reads = 0
    real = time.monotonic

    def counting() -> float:
        nonlocal reads
        reads += 1
        return real()

    monkeypatch.setattr(time, "monotonic", counting)
    reactor.run()
    assert len(set(seen)) == 1
    assert reads == 2  # at the start, and after the only wait


# Threads and signals


def test_another_thread_wakes_the_loop(reactor: Reactor) -> None:
    calls = Calls()

    def both() -> None:
        calls(threading.get_ident())
        reactor.stop()

    thread = threading.Thread(target=reactor.call_soon_threadsafe, args=(both,))
    reactor.call_soon(thread.start)
    reactor.run()
    thread.join()
    assert calls == [threading.get_ident()]


def test_a_thousand_wake_ups_do_not_block(reactor: Reactor) -> None:
    calls = Calls()
    for number in range(100_000):
        reactor.call_soon_threadsafe(calls, number)
    turns(reactor)
    assert calls == list(range(100_000))


def test_waking_a_closed_loop_writes_to_nobody(reactor: Reactor) -> None:
    number = reactor.wakeup_fd
    reactor.close()
    stranger = [*os.pipe()]
    while number not in stranger:
        stranger += os.pipe()
    reactor.call_soon_threadsafe(print)
    reactor.stop()
    for fd in stranger:
        os.set_blocking(fd, False)
        with pytest.raises((BlockingIOError, OSError)):
            assert os.read(fd, 1)
        os.close(fd)


def test_stop_before_run_ends_it_at_once(reactor: Reactor) -> None:
    reactor.stop()
    reactor.run()
    assert reactor.thread_ident is None


def test_a_wake_up_through_the_signal_descriptor(reactor: Reactor) -> None:
    os.write(reactor.wakeup_fd, b"\2")
    before = time.monotonic()
    reactor.run_turn(30)
    assert time.monotonic() - before < 15
