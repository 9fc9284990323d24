"""Engines without threads get the loop's turns, and a batch with room in it waits for one of them at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from tlsserver.reactor import Reactor
from tlsserver.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeEngine:
    """Performs eight a turn; one that is not full is left while others may join."""

    def __init__(self, queued: int = 0) -> None:
        self.queued = queued
        self.closed = False
        self.asked: list[tuple[int, bool]] = []

    def turn(self, in_progress: int, *, patient: bool) -> int:
        self.asked.append((in_progress, patient))
        if self.queued >= 8 or self.queued >= in_progress or not patient:
            self.queued -= min(self.queued, 8)
        return self.queued


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def turns(reactor: Reactor) -> Turns:
    return Turns(reactor)


def add(turns: Turns, queued: int) -> FakeEngine:
    engine = FakeEngine(queued)
    turns.add(cast("Any", engine))
    turns.add(cast("Any", engine))
    return engine


def next_turn_is_due(reactor: Reactor) -> bool:
    return reactor._patience(None) == 0


def test_a_batch_with_room_waits_one_turn_for_those_in_progress(turns: Turns, reactor: Reactor) -> None:
    engine = add(turns, 3)
    turns.take(5)
    assert engine.queued == 3
    assert next_turn_is_due(reactor)
    turns.take(5)
    assert engine.queued == 0
    assert engine.asked == [(5, True), (5, False)]


def test_nobody_to_wait_for(turns: Turns, reactor: Reactor) -> None:
    engine = add(turns, 3)
    turns.take(3)
    assert engine.queued == 0
    assert not next_turn_is_due(reactor)


def test_one_batch_a_turn(turns: Turns, reactor: Reactor) -> None:
    engine = add(turns, 20)
    left = []
    for _ in range(3):
        turns.take(20)
        left.append((engine.queued, next_turn_is_due(reactor)))
        reactor.run_turn(0)
    assert left == [(12, True), (4, True), (0, False)]


def test_after_waiting_the_next_may_wait_again(turns: Turns) -> None:
    engine = add(turns, 2)
    turns.take(9)
    turns.take(9)
    engine.queued = 2
    turns.take(9)
    assert engine.asked == [(9, True), (9, False), (9, True)]


def test_every_engine_has_its_turn_until_it_is_closed(turns: Turns) -> None:
    first, second = add(turns, 1), add(turns, 1)
    turns.take(0)
    assert (first.queued, second.queued) == (0, 0)
    first.closed = True
    third = add(turns, 1)
    turns.take(0)
    assert [len(one.asked) for one in (first, second, third)] == [1, 2, 1]


def test_without_engines_nothing_happens(turns: Turns, reactor: Reactor) -> None:
    turns.take(100)
    assert not next_turn_is_due(reactor)
