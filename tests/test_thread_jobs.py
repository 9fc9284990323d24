"""This thread's pool of jobs: ASYNC_init_thread(3)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import BusyError, Job, JobStatus, ManualEngine, Status, WaitContext
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Key
    from support.certificates import Identity


@pytest.fixture
def key(manual: ManualEngine, identity: Identity) -> Key:
    return manual.load_key(identity.key)


@pytest.fixture
def pool() -> Iterator[None]:
    yield
    engine_shim.init_thread()


@pytest.mark.usefixtures("pool")
def test_a_bounded_pool_has_no_job_until_one_has_ended(manual: ManualEngine, key: Key) -> None:
    engine_shim.init_thread(2)
    first, second, third = (Job(key.sign, b"%d" % number, WaitContext()) for number in range(3))
    assert [job.start() for job in (first, second, third)] == [JobStatus.PAUSED, JobStatus.PAUSED, JobStatus.NO_JOB]
    assert not third.wait_context.busy
    assert manual.pending == 2
    manual.perform()
    assert first.start() is JobStatus.FINISHED
    assert third.start() is JobStatus.PAUSED
    for job in (second, third):
        manual.perform()
        assert job.start() is JobStatus.FINISHED


@pytest.mark.usefixtures("pool")
def test_handshakes_share_the_pool(manual: ManualEngine, key: Key, identity: Identity) -> None:
    engine_shim.init_thread(1)
    with (
        Job(key.sign, b"document") as job,
        Pair(server_context(identity, key), client_context(identity)) as pair,
    ):
        assert job.start() is JobStatus.PAUSED
        assert pair.until_parked() is Status.WANT_ASYNC_JOB
        manual.perform()
        assert job.start() is JobStatus.FINISHED
        assert pair.until_parked() is Status.WANT_ASYNC
        manual.perform()
        assert pair.finish() is Status.DONE


@pytest.mark.usefixtures("pool")
def test_jobs_made_in_advance(key: Key, manual: ManualEngine) -> None:
    before = engine_shim.counters().stacks_alive
    engine_shim.init_thread(4, 3)
    if engine_shim.attach().guarded_stacks:
        assert engine_shim.counters().stacks_alive >= 3
    engine_shim.cleanup_thread()
    assert engine_shim.counters().stacks_alive <= before
    with Job(key.sign, b"document") as job:  # a pool without a bound comes by itself
        assert job.start() is JobStatus.PAUSED
        manual.perform()


def test_the_pool_is_not_changed_while_a_job_is_paused(manual: ManualEngine, key: Key) -> None:
    with Job(key.sign, b"document") as job:
        assert job.start() is JobStatus.PAUSED
        with pytest.raises(BusyError):
            engine_shim.init_thread(8)
        with pytest.raises(BusyError):
            engine_shim.cleanup_thread()
        manual.perform()
        assert job.start() is JobStatus.FINISHED
    engine_shim.init_thread()


@pytest.mark.parametrize("numbers", [(-1, 0), (2, 3), (0, 1), (2, -1), (1 << 31, 0), (1 << 70, 0)])
def test_numbers_that_cannot_be(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a pool of"):
        engine_shim.init_thread(*numbers)


def test_a_pool_is_a_threads_own(manual: ManualEngine, key: Key) -> None:
    answers: list[JobStatus] = []

    def elsewhere() -> None:
        engine_shim.init_thread(1)
        with Job(key.sign, b"here") as job, Job(key.sign, b"there") as other:
            answers.extend([job.start(), other.start()])
        engine_shim.cleanup_thread()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [JobStatus.PAUSED, JobStatus.NO_JOB]
    with Job(key.sign, b"one") as one, Job(key.sign, b"two") as two:
        assert [one.start(), two.start()] == [JobStatus.PAUSED, JobStatus.PAUSED]
    assert manual.pending == 0


def test_capable() -> None:
    assert engine_shim.is_capable()
