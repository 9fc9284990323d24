"""The heap of deadlines; how the loop uses it is in test_reactor.py."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tlsserver.timers import Timers

DEADLINES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=200)


@given(DEADLINES, st.integers(0, 20))
def test_the_due_come_in_order_and_the_cancelled_not_at_all(deadlines: list[tuple[int, bool]], now: int) -> None:
    timers = Timers()
    calls: list[Any] = []
    made = [timers.add(when, calls.append, ((when, number),)) for number, (when, _) in enumerate(deadlines)]
    for timer, (_, cancelled) in zip(made, deadlines, strict=True):
        if cancelled:
            timer.cancel()
    living = [(when, number) for number, (when, cancelled) in enumerate(deadlines) if not cancelled]
    assert timers.next_when() == min((when for when, _ in living), default=None)
    for timer in timers.take_due(now):
        timer.run()
    assert calls == sorted(entry for entry in living if entry[0] <= now)
    assert timers.next_when() == min((when for when, _ in living if when > now), default=None)


def test_the_dead_are_thrown_out_before_they_are_the_majority() -> None:
    timers = Timers()
    kept = [timers.add(number, print, ()) for number in range(1000)]
    for number in range(100_000):
        cancelled = timers.add(number, print, ())
        cancelled.cancel()
        cancelled.cancel()
        assert len(timers) <= 2 * len(kept)
    assert timers.next_when() == 0
    for timer in kept[:900]:
        timer.cancel()
    assert timers.next_when() == 900
    timers.clear()
    assert (len(timers), timers.next_when()) == (0, None)


def test_the_heap_shrinks_with_the_living() -> None:
    timers = Timers()
    for timer in [timers.add(number, print, ()) for number in range(1000)]:
        timer.cancel()
    for number in range(10_000):
        timers.add(number, print, ()).cancel()
    assert len(timers) <= 128


def test_cancelling_after_it_was_taken() -> None:
    timers = Timers()
    calls: list[int] = []
    timers.add(0, calls.append, (1,))
    timers.add(5, calls.append, (2,))
    [taken] = timers.take_due(1)
    taken.cancel()
    taken.run()
    assert calls == []
    assert timers.next_when() == 5
