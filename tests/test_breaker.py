"""The circuit breaker, by a clock of the test's."""

from __future__ import annotations

from tlsserver.signers.breaker import Breaker


def test_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(failures=3, seconds=1)
    for _ in range(2):
        breaker.failed(0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0)
    assert breaker.state(0) == "closed"
    assert breaker.allows(0)
    breaker.failed(0)
    assert breaker.state(0) == "open"
    assert not breaker.allows(0.999)


def test_one_trial_decides() -> None:
    breaker = Breaker(failures=1, seconds=1)
    breaker.failed(0)
    assert breaker.state(1) == "half-open"
    assert breaker.allows(1)
    breaker.begin(1)
    assert not breaker.allows(1)  # one at a time
    breaker.failed(1)
    assert breaker.state(1.5) == "open"
    assert breaker.allows(2)
    breaker.begin(2)
    breaker.succeeded()
    assert breaker.state(2) == "closed"
    assert breaker.allows(2)


def test_trial_that_was_not_wanted_any_more_tells_nothing() -> None:
    breaker = Breaker(failures=1, seconds=1)
    breaker.failed(0)
    breaker.begin(1)
    breaker.given_up()
    assert breaker.state(1) == "half-open"
    assert breaker.allows(1)


def test_who_went_this_way_before_the_trial_makes_no_room_for_another() -> None:
    breaker = Breaker(failures=1, seconds=1)
    assert not breaker.begin(0)
    breaker.failed(0)
    assert breaker.begin(1)
    breaker.given_up(is_trial=False)
    assert not breaker.allows(1)


def test_trial_that_never_ends_is_not_waited_for() -> None:
    breaker = Breaker(failures=1, seconds=1)
    breaker.failed(0)
    assert breaker.begin(1)
    assert not breaker.allows(10.9)
    assert breaker.allows(11)
    assert breaker.begin(11)
    assert not breaker.allows(11)


def test_late_failures_of_those_that_were_under_way_keep_it_open() -> None:
    breaker = Breaker(failures=2, seconds=1)
    for now in (0.0, 0.1, 0.5):
        breaker.failed(now)
    assert not breaker.allows(1.4)
    assert breaker.allows(1.5)


def test_state_while_another_thread_closes_it() -> None:
    """Whoever takes a snapshot reads it while the loop's thread sets it."""

    class Changing(Breaker):
        times = iter([5.0, None, None])

        @property
        def _open_until(self) -> float | None:
            return next(self.times)

        @_open_until.setter
        def _open_until(self, when: float | None) -> None:
            pass

    assert Changing().state(1.0) == "open"
