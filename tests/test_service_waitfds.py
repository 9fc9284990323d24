"""Wait fds as engines of others treat them, on a loop with real handshakes: the test plays the engine's part."""

from __future__ import annotations

import os
import selectors
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from helpers_server import House

import tlsserver.service
from tlsserver.session import Session
from tlsserver.wire import Step, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import engine_shim
    from support.certificates import Identity
    from support.running import Clock
    from tlsserver.wire import Step as StepType

pytestmark = pytest.mark.usefixtures("nothing_left")


class Strange(Session):
    """The handshakes of a strange engine: it shows `fds` instead of its own."""

    __slots__ = ()
    fds: WaitFdSet = WaitFdSet((), ())
    resumes = 0
    steps: list[StepType] = []  # noqa: RUF012 - set anew by the fixture

    def handshake(self) -> Step:
        step = super().handshake()
        type(self).resumes += 1
        type(self).steps.append(step)
        return step

    def wait_fds(self) -> WaitFdSet:
        shown = type(self).fds
        if shown.added:
            self.before_pausing()
        return shown

    def before_pausing(self) -> None:
        """Nothing."""


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> type[Strange]:
    class Fresh(Strange):
        __slots__ = ()
        steps: list[StepType] = []  # noqa: RUF012

    monkeypatch.setattr(tlsserver.service, "Session", Fresh)
    return Fresh


@pytest.mark.parametrize("selector", ["selectors2", "selectors", "poll"])
def test_a_number_that_is_another_descriptor_each_time(
    identity: Identity, manual: engine_shim.ManualEngine, strange: type[Strange], selector: str
) -> None:
    """The engine closes its fd and gets the same number for the next, all within one step."""
    number = os.eventfd(0)
    opened = [0]

    def reopen(_self: Strange) -> None:
        os.close(number)
        assert os.eventfd(0, os.EFD_NONBLOCK) == number
        opened[0] += 1

    strange.before_pausing = reopen  # type: ignore[method-assign, assignment]
    strange.fds = WaitFdSet((number,), (number,))
    with House(identity, manual, selector=selector) as house:
        client = house.client()
        house.until(lambda: manual.pending)
        for _ in range(5):
            before = opened[0]
            os.eventfd_write(number, 1)
            # Only a wake-up that is seen comes that soon: the next look without one is after ten seconds.
            for _ in range(50):
                house.turn()
            assert opened[0] == before + 1
        manual.perform()
        os.eventfd_write(number, 1)
        house.until(lambda: client.is_connected)
        assert len(house.service._hub.wait_fds) == 0
    os.close(number)


@contextmanager
def stuck_fd(strange: type[Strange]) -> Iterator[Callable[[], None]]:
    """Give what makes every job show an fd that is readable for ever."""
    readable, writer = os.pipe()
    os.write(writer, b"x")

    def get_stuck() -> None:
        strange.fds = WaitFdSet((readable,), ())

    yield get_stuck
    os.close(readable)
    os.close(writer)


def test_an_fd_that_stays_readable(
    identity: Identity, manual: engine_shim.ManualEngine, strange: type[Strange]
) -> None:
    """An engine that never clears its fd: it is resumed a bounded number of times, and nobody else is held up."""
    with stuck_fd(strange) as get_stuck, House(identity, manual) as house:
        other = house.client()
        house.finish(manual)
        get_stuck()
        stuck = house.client()
        house.until(lambda: manual.pending)
        began, before = time.monotonic(), strange.resumes
        # 16 for nothing, then 16 after 1 ms each, 16 after 2 ms, 12 after 4 ms.
        house.until(lambda: strange.resumes >= before + 60)
        assert time.monotonic() - began >= 0.016 + 0.032 + 0.044
        other.send(b"alive")
        house.until(lambda: other.received == b"ALIVE")
        manual.perform()
        house.until(lambda: stuck.is_connected)


def test_many_stuck_fds_hold_up_nobody(
    identity: Identity, manual: engine_shim.ManualEngine, strange: type[Strange]
) -> None:
    with stuck_fd(strange) as get_stuck, House(identity, manual) as house:
        other = house.client()
        house.finish(manual)
        get_stuck()
        for _ in range(50):
            house.client()
        house.until(lambda: house.statistics.parked_now == 50)
        house.until(lambda: len(house.service._hub.wait_fds) == 0)
        other.send(b"alive")
        house.until(lambda: other.received == b"ALIVE")


@pytest.mark.parametrize(
    "selector",
    [selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector],
    ids=lambda selector: selector.__name__,
)
def test_an_fd_that_is_closed_under_us(
    identity: Identity,
    manual: engine_shim.ManualEngine,
    strange: type[Strange],
    clock: Clock,
    selector: type[selectors.BaseSelector],
) -> None:
    """That engine's handshake is lost to its deadline at worst; the loop and the others are not."""
    number = os.eventfd(0)
    strange.fds = WaitFdSet((number,), ())
    with House(identity, manual, selector=selector(), timeout_handshake=10) as house:
        house.client()
        house.until(lambda: manual.pending)
        os.close(number)
        house.quiet()
        clock.advance(11)
        house.until(lambda: house.statistics.handshakes_failed + house.statistics.handshakes_completed)
        strange.fds = WaitFdSet((), ())
        other = house.client()
        house.until(lambda: manual.pending)
        manual.perform()
        house.until(lambda: other.is_connected)


def test_openssl_tells_what_the_job_has_set_anew(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual) as house:
        house.client()
        house.until(lambda: manual.pending)
        [driver] = house.service._hub.drivers
        session, first = driver.connection._wire, driver.connection.watch().wait_fds
        assert isinstance(session, Session)
        fds = session.wait_fds()
        assert fds.added == fds.all == tuple(fd.number for fd in first)
        manual.wake()
        house.quiet()
        assert session.wait_fds() == WaitFdSet(fds.all, (), fds.serial)
        assert driver.connection.watch().wait_fds == first
