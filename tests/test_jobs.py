"""The line of those who wait for a job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlsserver.jobs import JobQueue, Place


class Pool:
    """A few jobs, and connections that want one each."""

    def __init__(self, jobs: int) -> None:
        self.queue = JobQueue()
        self.jobs = jobs
        self.served: list[str] = []
        self.places: dict[str, Place] = {}

    def arrive(self, name: str) -> Place:
        self.places[name] = self.queue.place(lambda: self.call(name))
        return self.places[name]

    def call(self, name: str) -> bool:
        """Make the call that needs a job; whether it got one."""
        place = self.places[name]
        if not self.jobs or not place.may_take():
            place.wait()
            return False
        self.jobs -= 1
        place.leave()
        self.served.append(name)
        return True

    def job_ends(self) -> None:
        self.jobs += 1
        while self.queue.serve_first():
            pass


def test_nobody_waits_while_there_are_jobs() -> None:
    pool = Pool(2)
    for name in "ba":
        pool.arrive(name)
    assert pool.call("a")
    assert pool.call("b")
    assert pool.queue.waiting == []
    assert not pool.queue.serve_first()


def test_first_come_first_served_whoever_asks_first() -> None:
    pool = Pool(0)
    for name in "abc":
        pool.arrive(name)
    for name in "cab":
        pool.call(name)
    for _ in range(3):
        pool.job_ends()
    assert pool.served == ["a", "b", "c"]


def test_a_job_that_came_back_is_theirs_who_wait() -> None:
    pool = Pool(0)
    for name in "ab":
        pool.arrive(name)
    pool.call("a")
    pool.jobs += 1
    assert not pool.call("b")
    pool.job_ends()
    assert pool.served == ["a", "b"]


def test_an_older_handshake_takes_a_job_directly_and_waits_first() -> None:
    pool = Pool(1)
    for name in "abc":
        pool.arrive(name)
    assert pool.call("a")
    pool.call("b")
    pool.call("c")
    assert not pool.call("a")
    assert pool.queue.waiting[0] is pool.places["a"]
    pool.places["a"].leave()
    pool.jobs += 1
    assert pool.call("a"), "its ticket is lower than all that wait"


def test_an_open_connection_draws_a_ticket_for_each_wait() -> None:
    pool = Pool(0)
    old = pool.arrive("old")
    old.opened()
    assert old.ticket is None
    assert old.may_take()
    pool.arrive("new")
    pool.call("new")
    assert not old.may_take()
    pool.call("old")
    pool.arrive("newer")
    pool.call("newer")
    for _ in range(3):
        pool.job_ends()
    assert pool.served == ["new", "old", "newer"]
    assert old.ticket is None


def test_leaving_makes_no_hole_and_may_be_repeated() -> None:
    pool = Pool(0)
    for name in "abc":
        pool.arrive(name)
        pool.call(name)
        pool.call(name)
    for _ in range(2):
        pool.places["b"].leave()
    assert pool.queue.waiting == [pool.places["a"], pool.places["c"]]
    pool.job_ends()
    pool.job_ends()
    assert pool.served == ["a", "c"]


def test_serving_stops_at_the_first_that_gets_none() -> None:
    pool = Pool(0)
    tried: list[str] = []
    for name in "ab":
        place = pool.queue.place(lambda name=name: tried.append(name))  # type: ignore[misc]
        place.wait()
    assert not pool.queue.serve_first()
    assert tried == ["a"]


def test_a_first_that_joins_anew_is_another_call() -> None:
    queue = JobQueue()
    left = [2]

    def again() -> None:
        left[0] -= 1
        place.leave()
        if left[0]:
            place.wait()

    place = queue.place(again)
    place.opened()
    place.wait()
    assert queue.serve_first()
    assert not queue.serve_first()
    assert queue.waiting == []


@given(st.lists(st.tuples(st.sampled_from(["arrive", "call", "open", "leave", "end"]), st.integers(0, 9)), max_size=60))
def test_the_line_is_sorted_and_nobody_is_passed(actions: list[tuple[str, int]]) -> None:
    """Invariant: tickets ascend, and who is served had the lowest ticket of all who waited."""
    pool = Pool(2)
    for action, number in actions:
        known = sorted(pool.places)
        name = known[number % len(known)] if known else ""
        if action == "arrive":
            pool.arrive(f"{len(known):02}")
        elif action == "end":
            pool.job_ends()
        elif not name:
            continue
        elif action == "open":
            pool.places[name].opened()
        elif action == "leave":
            pool.places[name].leave()
        else:
            waiting, ticket = list(pool.queue.waiting), pool.places[name].ticket
            if pool.call(name) and waiting:
                assert ticket is not None
                assert ticket <= min(place.ticket or 0 for place in waiting)
        tickets = [place.ticket for place in pool.queue.waiting]
        assert None not in tickets
        assert tickets == sorted(set(tickets), key=lambda ticket: ticket or 0)
