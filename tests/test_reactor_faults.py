"""The loop and what must not happen to it: failing callbacks, interrupts, misuse, forks."""

from __future__ import annotations

import errno
import functools
import logging
import os
import selectors
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers_reactor import Calls, open_pair

from tlsserver.errors import ForkedProcessError, ServerStateError
from tlsserver.reactor import EVENT_READ, EVENT_WRITE, Reactor
from tlsserver.selector import new_selector

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

pytest_plugins = ("support.reactor_scene",)
pytestmark = pytest.mark.usefixtures("descriptors")


# Errors


def test_a_failing_callback_loses_nobody(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        message = "on purpose"
        raise RuntimeError(message)

    near, far = pair
    calls = Calls()
    far.send(b"x")
    reactor.add(near.fileno(), EVENT_READ, fail)
    reactor.call_soon(fail)
    reactor.call_later(0, fail)
    reactor.at_end_of_turn(fail)
    reactor.at_end_of_turn(lambda: calls("hook"))
    reactor.call_soon(calls, "soon")
    reactor.call_later(0, calls, "later")
    with caplog.at_level(logging.ERROR):
        reactor.run_turn()
    assert calls == ["later", "soon", "hook"]
    assert [record.exc_info is not None for record in caplog.records] == [True] * 4


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(reactor: Reactor, stop: type[BaseException]) -> None:
    def interrupt() -> None:
        raise stop

    reactor.call_soon(interrupt)
    with pytest.raises(stop):
        reactor.run()
    assert reactor.thread_ident is None
    reactor.call_soon(reactor.stop)
    reactor.run()


def test_misuse_has_an_error_of_its_own(reactor: Reactor) -> None:
    errors: list[Exception] = []

    def run_inside() -> None:
        try:
            reactor.run()
        except ServerStateError as error:
            errors.append(error)
        reactor.stop()

    reactor.call_soon(run_inside)
    reactor.run()
    assert "runs already" in str(errors[0])
    reactor.close()
    reactor.close()
    with pytest.raises(ServerStateError, match="closed"):
        reactor.run()


# Descriptors that others close


def test_a_descriptor_that_was_closed_does_not_stop_the_loop(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Only select(2) refuses the whole set; epoll says nothing, poll tells again and again."""
    near, far = pair
    calls = Calls()
    number = os.eventfd(0)
    registration = reactor.add(number, EVENT_READ, lambda _events: None)
    reactor.add(near.fileno(), EVENT_READ, lambda _events: calls(near.recv(1)))
    os.close(number)
    far.send(b"x")
    for _ in range(3):
        reactor.run_turn(0)
    assert calls == [b"x"]
    reactor.remove(registration)
    reactor.remove(registration)


def test_a_number_that_went_to_another_descriptor(reactor: Reactor) -> None:
    number = os.eventfd(0)
    stale = reactor.add(number, EVENT_READ, lambda _events: None)
    os.close(number)
    assert os.eventfd(1) == number
    reactor.remove(stale)
    calls = Calls()
    reactor.add(number, EVENT_READ, lambda _events: calls("new"))
    reactor.run_turn(0)
    os.close(number)
    assert os.eventfd(1) == number
    reactor.add(number, EVENT_READ, lambda _events: calls("newest"))
    reactor.run_turn(0)
    os.close(number)
    assert calls == ["new", "newest"]


def test_an_error_of_the_selector_that_no_descriptor_explains(reactor: Reactor) -> None:
    def broken(_timeout: float | None) -> list[object]:
        raise OSError(errno.EIO, "on purpose")

    reactor._selector.select = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="on purpose"):
        reactor.run_turn(0)


# Fairness


class Crowd:
    """Many readable descriptors, and who was served, turn by turn."""

    def __init__(self, reactor: Reactor, urgent: int, patient: int) -> None:
        self.reactor = reactor
        self.pairs = [open_pair() for _ in range(urgent + patient)]
        self.served = Calls()
        self.registrations = []
        for number, (near, far) in enumerate(self.pairs):
            far.send(b"x")
            served = functools.partial(self.served, number)
            self.registrations.append(reactor.add(near.fileno(), EVENT_READ, served, urgent=number < urgent))

    def turn(self) -> list[int]:
        self.served.clear()
        self.reactor.run_turn()  # it must not wait: nobody takes the bytes out
        return [number for number, _events in self.served]

    def close(self) -> None:
        for near, far in self.pairs:
            near.close()
            far.close()


@pytest.fixture(params=["selectors2", "poll"])
def crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    """With selectors that can be nested, and with one that cannot."""
    monkeypatch.setattr("tlsserver.reactor._BACKLOG_SECONDS", 0.0)  # one event a turn
    reactor = Reactor(new_selector(request.param))
    made = Crowd(reactor, 3, 5)
    yield made
    made.close()
    reactor.close()


def test_the_urgent_are_served_in_every_turn_and_the_others_in_turn(crowd: Crowd) -> None:
    seen = []
    for _ in range(15):
        *urgent, patient = crowd.turn()
        assert sorted(urgent) == [0, 1, 2]
        seen.append(patient)
    assert sorted(seen[:5]) == [3, 4, 5, 6, 7], "one came twice before another came at all"
    assert seen == seen[:5] * 3


def test_a_backlog_is_served_without_waiting(crowd: Crowd) -> None:
    crowd.turn()
    for near, _ in crowd.pairs:
        near.recv(1)
    assert len(crowd.turn()) == 1
    assert len(crowd.reactor._backlog) == 3


def test_what_is_ready_is_told_once(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    if crowd.reactor._crowd is crowd.reactor._selector:
        pytest.skip("these selectors cannot be nested")
    select, asked = crowd.reactor._crowd.select, Calls()

    def counted(timeout: float | None) -> list[tuple[Any, int]]:
        asked(timeout)
        return select(timeout)

    monkeypatch.setattr(crowd.reactor._crowd, "select", counted)
    for _ in range(5):
        crowd.turn()
    assert len(asked) == 1
    crowd.turn()
    assert len(asked) == 2


def test_who_becomes_urgent_is_served_in_every_turn(crowd: Crowd) -> None:
    last = crowd.registrations[-1]
    crowd.reactor.make_urgent(last)
    crowd.reactor.make_urgent(last)
    for _ in range(3):
        *urgent, patient = crowd.turn()
        assert sorted(urgent) == [0, 1, 2, 7]
        assert patient not in urgent
    crowd.reactor.modify(last, 0)
    assert 7 not in crowd.turn()


def test_who_leaves_the_backlog_is_not_served(crowd: Crowd) -> None:
    crowd.turn()
    for registration in crowd.registrations:
        crowd.reactor.remove(registration)
    assert crowd.reactor._backlog == {}
    assert crowd.reactor._patience(None) is None


def test_who_stopped_listening_is_not_served(crowd: Crowd) -> None:
    crowd.turn()
    for registration in crowd.registrations:
        crowd.reactor.modify(registration, EVENT_WRITE)
    crowd.served.clear()
    crowd.reactor.run_turn(0)
    assert {events for _, events in crowd.served} == {EVENT_WRITE}


# Forks

# Python 3.12 and later warn of any fork with threads, those of other tests' engines included.
MANY_THREADS = "ignore:.*multi-threaded:DeprecationWarning"


def in_child(check: Callable[[], None]) -> None:
    """Run the check in a forked child; fail if it fails there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings(MANY_THREADS)
def test_a_child_must_make_its_own(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    calls = Calls()
    registration = reactor.add(near.fileno(), EVENT_READ, calls)

    def check() -> None:
        uses: list[Callable[[], object]] = [
            reactor.run,
            reactor.run_turn,
            lambda: reactor.add(far.fileno(), EVENT_READ, print),
            lambda: reactor.modify(registration, EVENT_WRITE),
            lambda: reactor.remove(registration),
        ]
        for use in uses:
            with pytest.raises(ForkedProcessError, match="parent process"):
                use()
        reactor.close()
        own = Reactor()
        own.call_soon(own.stop)
        own.run()
        own.close()

    in_child(check)
    far.send(b"x")
    reactor.run_turn(0)
    assert calls == [EVENT_READ], "the child has changed the parent's set"


@pytest.mark.filterwarnings(MANY_THREADS)
def test_a_fork_inside_a_callback_ends_the_childs_loop(reactor: Reactor) -> None:
    def fork() -> None:
        children.append(os.fork())
        reactor.call_soon(reactor.stop)

    children: list[int] = []
    reactor.call_soon(fork)
    try:
        reactor.run()
    except ForkedProcessError:
        os._exit(0 if children == [0] else 1)
    if children == [0]:
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_reactor_that_cannot_be_made_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr("tlsserver.reactor.nestable", refuse)
    with selectors.SelectSelector() as selector:
        before = open_descriptors()
        with pytest.raises(OSError, match="no more"):
            Reactor(selector)
        assert open_descriptors() == before
