"""How a paused call waits: wait fds and their generations, polling, and fds that are readable for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tlsserver.parking import Parking
from tlsserver.wire import Step, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Iterable

ONE = WaitFdSet((7,), ())


def begun() -> Parking:
    parking = Parking()
    parking.begin(Step.WANT_ASYNC, lambda _now: None, 0.0)
    return parking


def generations(parking: Parking) -> dict[int, int]:
    return {fd.number: fd.generation for fd in parking.wait_fds}


# Generations


def test_an_fd_keeps_its_generation_until_the_engine_sets_it_anew() -> None:
    parking = begun()
    parking.wait(WaitFdSet((7, 8), (7, 8)), 0.0)
    first = generations(parking)
    assert sorted(first) == [7, 8]
    parking.wait(WaitFdSet((7, 8), ()), 1.0)
    assert generations(parking) == first
    parking.wait(WaitFdSet((8, 7), (7,)), 2.0)
    second = generations(parking)
    assert second[8] == first[8]
    assert second[7] not in first.values()


def test_an_fd_that_went_and_came_back_is_another() -> None:
    parking = begun()
    parking.wait(ONE, 0.0)
    before = generations(parking)
    parking.wait(WaitFdSet((), ()), 1.0)
    parking.wait(ONE, 2.0)
    assert generations(parking) != before


def test_a_later_pause_never_repeats_a_generation() -> None:
    """Both pauses may fall into one turn, so that the driver sees only the second."""
    parking = begun()
    parking.wait(ONE, 0.0)
    before = generations(parking)
    parking.end(0.0)
    parking.begin(Step.WANT_ASYNC, lambda _now: None, 0.0)
    parking.wait(ONE, 0.0)
    assert generations(parking) != before


def test_an_fd_that_is_shown_twice_is_one() -> None:
    parking = begun()
    parking.wait(WaitFdSet((7, 7), (7, 7)), 0.0)
    assert [fd.number for fd in parking.wait_fds] == [7]


# Readable for nothing


class Stuck:
    """An engine whose fd is readable whenever it is watched, ``every`` so many seconds (a turn of the loop)."""

    def __init__(self, every: float) -> None:
        self.parking = begun()
        self.now = 0.0
        self.every = every
        self.resumed: list[float] = []
        self.parking.wait(ONE, self.now)

    def step(self) -> None:
        parking = self.parking
        if parking.poll_at is None:
            self.now += self.every
            self.resumed.append(self.now)
            parking.wait(ONE, self.now)
        else:
            self.now = parking.poll_at
            assert not parking.poll(self.now), "its fds are to be watched again, first"

    def until(self, seconds: float) -> int:
        """Let time pass; how many resumes it took."""
        before = len(self.resumed)
        while self.now < seconds:
            self.step()
        return len(self.resumed) - before


@pytest.mark.parametrize("every", [1e-6, 1e-4, 9e-4])
def test_a_stuck_fd_is_left_alone_for_longer_and_longer(every: float) -> None:
    stuck = Stuck(every)
    pauses: list[float] = []
    for _ in range(400):
        stuck.step()
        if stuck.parking.poll_at is not None:
            assert stuck.parking.wait_fds == ()
            pauses.append(round(stuck.parking.poll_at - stuck.now, 6))
            if len(pauses) == 1:
                assert len(stuck.resumed) == 17
    expected = [seconds for seconds in (0.001, 0.002, 0.004, 0.008, 0.016, 0.032) for _ in range(16)]
    assert pauses[:96] == expected
    assert set(pauses[96:]) == {0.05}


def test_it_costs_little() -> None:
    stuck = Stuck(1e-5)
    assert stuck.until(1.2) < 130
    assert stuck.until(11.2) <= 201


def test_a_slow_loop_does_not_hide_it() -> None:
    """200 stuck fds make a turn of 4 ms: each looks as if it took its time."""
    stuck = Stuck(0.004)
    assert stuck.until(1.03) <= 260
    assert stuck.parking.poll_at is not None
    assert stuck.until(60.0) < 59 * 20 * 2


@pytest.mark.parametrize("every", [0.051, 0.2])
def test_an_fd_that_takes_its_time_is_never_left_alone(every: float) -> None:
    stuck = Stuck(every)
    for _ in range(1000):
        stuck.step()
        assert stuck.parking.poll_at is None


def test_an_fd_that_behaves_is_trusted_again() -> None:
    stuck = Stuck(1e-5)
    stuck.until(0.05)
    while stuck.parking.poll_at is not None:
        stuck.step()
    stuck.now += 0.05
    stuck.parking.wait(ONE, stuck.now)
    assert stuck.parking.poll_at is None
    for _ in range(16):
        stuck.step()
        assert stuck.parking.poll_at is None
    stuck.step()
    assert stuck.parking.poll_at == pytest.approx(stuck.now + 0.001)


def test_a_new_call_begins_with_patience() -> None:
    stuck = Stuck(1e-5)
    stuck.until(0.05)
    stuck.parking.end(stuck.now)
    stuck.parking.begin(Step.WANT_ASYNC, lambda _now: None, stuck.now)
    stuck.parking.wait(ONE, stuck.now)
    assert stuck.parking.poll_at is None
    assert stuck.parking.wait_fds


def test_a_resume_out_of_turn_changes_nothing() -> None:
    stuck = Stuck(1e-5)
    while stuck.parking.poll_at is None:
        stuck.step()
    for _ in range(50):
        stuck.parking.wait(ONE, stuck.now)
    assert stuck.parking.poll_at == pytest.approx(stuck.now + 0.001)


# None at all


def poll_times(parking: Parking, fds: Iterable[WaitFdSet]) -> list[float]:
    now, delays = 0.0, []
    for one in fds:
        parking.wait(one, now)
        if parking.poll_at is not None:
            delays.append(round(parking.poll_at - now, 6))
            now = parking.poll_at
            assert parking.poll(now)
    return delays


def test_without_fds_it_is_polled() -> None:
    nothing = WaitFdSet((), ())
    assert poll_times(begun(), [nothing] * 8) == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


def test_fds_that_come_later_end_the_polling() -> None:
    parking = begun()
    poll_times(parking, [WaitFdSet((), ())] * 30)
    parking.wait(ONE, 5.0)
    assert parking.poll_at is None
    assert parking.wait_fds
