"""A reactor within another loop: what it tells that loop, and when."""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

import pytest
from helpers_reactor import Calls, open_pair

from tlsserver.errors import ConfigurationError
from tlsserver.nested import NestedReactor
from tlsserver.reactor import EVENT_READ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.reactor import Reactor


@pytest.fixture
def changes() -> Calls:
    return Calls()


@pytest.fixture
def reactor(changes: Calls) -> Iterator[NestedReactor]:
    made = NestedReactor(changes)
    yield made
    made.close()


def is_ready(reactor: NestedReactor) -> bool:
    return bool(select.select([reactor.fileno()], [], [], 0)[0])


def test_descriptor_tells_of_events(reactor: NestedReactor, changes: Calls) -> None:
    near, far = open_pair()
    with near, far:
        calls = Calls()
        reactor.add(near.fileno(), EVENT_READ, calls, urgent=True)
        crowd = Calls()
        other = reactor.add(far.fileno(), EVENT_READ, crowd)
        assert not is_ready(reactor)
        far.send(b"x")
        assert is_ready(reactor)
        reactor.run_turn()
        assert (calls, crowd, changes) == ([EVENT_READ], [], [])
        near.recv(1)
        near.send(b"x")
        assert is_ready(reactor)
        while not crowd:
            reactor.run_turn()
        reactor.remove(other)


def test_what_is_asked_for_between_turns_is_told(reactor: NestedReactor, changes: Calls) -> None:
    def patience() -> float | None:
        return reactor.patience

    assert patience() is None
    reactor.call_later(50, print)
    assert len(changes) == 1
    assert patience() == pytest.approx(50, abs=1)
    reactor.call_soon(changes.clear)
    assert len(changes) == 2
    assert patience() == 0
    reactor.run_turn()
    assert changes == []
    reactor.hurry()
    assert (len(changes), patience()) == (1, 0)
    reactor.run_turn()
    assert patience() == pytest.approx(50, abs=1)
    reactor.end_turn_soon()
    assert (len(changes), patience()) == (2, 0)


def test_what_is_asked_for_within_a_turn_is_not(reactor: NestedReactor, changes: Calls) -> None:
    def ask_for_more(asked: Reactor) -> None:
        asked.call_soon(asked.hurry)
        asked.call_later(50, print)
        asked.end_turn_soon()

    reactor.call_soon(ask_for_more, reactor)
    reactor.run_turn()
    assert len(changes) == 1
    assert reactor.patience == 0


def test_other_threads_wake_it(reactor: NestedReactor, changes: Calls) -> None:
    calls = Calls()
    thread = threading.Thread(target=reactor.call_soon_threadsafe, args=(calls, 1))
    thread.start()
    thread.join()
    assert is_ready(reactor)
    reactor.run_turn()
    assert (calls, changes) == ([1], [])


def test_selector_without_a_descriptor(changes: Calls) -> None:
    with pytest.raises(ConfigurationError, match="neither epoll nor kqueue"):
        NestedReactor(changes, "poll")
