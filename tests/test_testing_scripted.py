"""The scripted provider itself, one operation at a time, in a job of the test's own."""

from __future__ import annotations

import gc
import select
import threading
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import EngineUnavailableError, Job, JobStatus, ShimError, WaitContext, WaitStatus
from support import leaks
from support.pair import Pair, client_context, server_context
from tlsserver.testing import AT_ONCE, HELD, SIGNALLED, Change, Counts, Kind, Script, ScriptedProvider, control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Key
    from support.certificates import Identity

ASYNC = 0x100  # SSL_MODE_ASYNC


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    """Each test leaves nothing under way."""
    with WaitContext() as context:  # what it signals with is never closed, but used again
        context.set_callback(int)
    with ScriptedProvider() as made:
        before = leaks.holdings()
        yield made
        gc.collect()
        counts = made.counts()
        assert (counts.alive, counts.fds_open) == (0, 0)
        assert not leaks.complaint(before, leaks.holdings())


@pytest.fixture
def key(scripted: ScriptedProvider, identity: Identity) -> Key:
    return scripted.load_key(identity.key)


def readable(job: Job) -> list[int]:
    """Return which of a job's wait fds are readable now."""
    return select.select(job.wait_context.get_all_fds(), [], [], 0)[0]


def finish(job: Job) -> int:
    """Resume as often as its fds say, without waiting; return how often it was paused."""
    pauses = 0
    while job.start() is JobStatus.PAUSED:
        pauses += 1
        assert readable(job), "paused, and nothing is readable"
    assert job.result()
    return pauses


# What a script says


@pytest.mark.parametrize(
    ("step", "pauses", "for_nothing"),
    [
        (AT_ONCE, 0, 0),
        (SIGNALLED, 1, 0),
        (Script(told=False, pauses=3), 3, 0),
        (Script(told=False, false_wakes=2), 3, 2),
        (Script(told=False, fds=3, false_wakes=1), 2, 1),
        (Script(told=False, pauses=3, change=Change.RENEW), 3, 0),
        (Script(told=False, pauses=3, change=Change.REUSE), 3, 0),
        (Script(told=False, pauses=2, false_wakes=2, change=Change.RENEW, fds=3), 4, 2),
    ],
)
def test_by_itself(scripted: ScriptedProvider, key: Key, step: Script, pauses: int, for_nothing: int) -> None:
    scripted.script(step)
    with Job(key.sign, b"document") as job:
        assert finish(job) == pauses
    assert scripted.counts() == Counts(1, 1, 0, pauses, for_nothing, 0, 0, 0)


def test_held_until_completed(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(HELD)
    job = Job(key.sign, b"document")
    assert job.start() is JobStatus.PAUSED
    (waiting,) = scripted.waiting()
    assert (waiting.kind, waiting.pause, waiting.fds) == (Kind.SIGN, 1, job.wait_context.get_all_fds())
    assert readable(job) == []
    for _ in range(3):  # resumed for nothing, it pauses again
        assert job.start() is JobStatus.PAUSED
    scripted.complete()
    assert readable(job) == list(waiting.fds)
    assert scripted.waiting() == ()
    assert job.start() is JobStatus.FINISHED
    assert scripted.counts().for_nothing == 3


def test_each_pause_is_completed(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(pauses=3))
    job = Job(key.sign, b"document")
    for number in (1, 2, 3):
        assert job.start() is JobStatus.PAUSED
        assert [waiting.pause for waiting in scripted.waiting()] == [number]
        assert readable(job) == []
        scripted.complete()
    assert job.start() is JobStatus.FINISHED


def test_release_all_ends_all_pauses(scripted: ScriptedProvider, key: Key) -> None:
    scripted.default(Script(pauses=3))
    jobs = [Job(key.sign, b"document") for _ in range(3)]
    assert {job.start() for job in jobs} == {JobStatus.PAUSED}
    assert len(scripted.waiting()) == 3
    scripted.release_all()
    assert {job.start() for job in jobs} == {JobStatus.FINISHED}


@pytest.mark.parametrize("told", [True, False])
def test_failure(scripted: ScriptedProvider, key: Key, told: bool) -> None:
    scripted.script(Script(told=told, fails=not told, pauses=2))
    with Job(key.sign, b"document") as job:
        job.start()
        if told:
            scripted.fail()
        else:
            job.start()
        assert job.start() is JobStatus.FINISHED
        with pytest.raises(ShimError, match="the script says that this operation fails"):
            job.result()
    assert (scripted.counts().completed, scripted.counts().failed) == (0, 1)


def test_by_index_and_by_fd(scripted: ScriptedProvider, key: Key) -> None:
    scripted.default(Script(fds=3))
    jobs = [Job(key.sign, b"document") for _ in range(3)]
    for job in jobs:
        job.start()
    serials = [waiting.serial for waiting in scripted.waiting()]
    assert serials == sorted(serials)
    fds = [waiting.fds for waiting in scripted.waiting()]
    scripted.complete(1, fd=2)
    assert [readable(job) for job in jobs] == [[], [fds[1][2]], []]
    assert [waiting.serial for waiting in scripted.waiting()] == [serials[0], serials[2]]
    scripted.wake(1, fd=0)
    assert readable(jobs[2]) == [fds[2][0]]
    assert jobs[2].start() is JobStatus.PAUSED
    assert readable(jobs[2]) == []
    scripted.complete()
    scripted.complete(fd=1)
    assert {job.start() for job in jobs} == {JobStatus.FINISHED}


def test_no_such_operation(scripted: ScriptedProvider, key: Key) -> None:
    for call in (scripted.complete, scripted.fail, scripted.wake):
        with pytest.raises(IndexError, match="no operation 0 with a wait fd 0 waits"):
            call()
    scripted.script(Script(fds=2))
    job = Job(key.sign, b"document")
    job.start()
    with pytest.raises(IndexError):
        scripted.complete(0, fd=2)
    with pytest.raises(IndexError):
        scripted.complete(1)
    assert len(scripted.waiting()) == 1
    scripted.complete()
    job.start()


def test_fds_with_other_numbers(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(pauses=2, change=Change.RENEW))
    job = Job(key.sign, b"document")
    job.start()
    first = job.wait_context.get_all_fds()
    scripted.complete()
    job.start()
    changed = job.wait_context.get_changed_fds()
    assert (changed.added, changed.deleted) == (job.wait_context.get_all_fds(), first)
    assert set(changed.added).isdisjoint(first)
    scripted.complete()
    assert job.start() is JobStatus.FINISHED


def test_other_fds_with_the_same_numbers(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(pauses=2, change=Change.REUSE))
    job = Job(key.sign, b"document")
    job.start()
    first = job.wait_context.get_all_fds()
    with select.epoll() as epoll:
        epoll.register(first[0], select.EPOLLIN)
        scripted.complete()
        assert epoll.poll(0) == [(first[0], select.EPOLLIN)]
        job.start()
        assert job.wait_context.get_all_fds() == first
        assert first[0] in job.wait_context.get_changed_fds().added
        scripted.complete()
        # The kernel has forgotten the number with the descriptor that is closed.
        assert epoll.poll(0) == []
    assert job.start() is JobStatus.FINISHED


def test_without_fds(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(fds=0))
    job = Job(key.sign, b"document")
    job.start()
    assert job.wait_context.get_all_fds() == ()
    assert job.start() is JobStatus.PAUSED
    scripted.complete()
    assert job.start() is JobStatus.FINISHED
    assert scripted.counts().fds_open == 0


def test_sticky(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(sticky=True))
    job = Job(key.sign, b"document")
    for _ in range(3):
        assert job.start() is JobStatus.PAUSED
        assert readable(job)
    scripted.complete()
    assert job.start() is JobStatus.FINISHED


def test_callback(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(callback=True))
    called: list[str] = []
    with WaitContext() as context:
        context.set_callback(called.append, "called")
        job = Job(key.sign, b"document", context)
        assert job.start() is JobStatus.PAUSED
        assert (context.get_all_fds(), context.get_status()) == ((), WaitStatus.OK)
        assert scripted.waiting()[0].has_callback
        assert context.run_callbacks() == 0
        scripted.wake()
        assert (context.run_callbacks(), job.start()) == (1, JobStatus.PAUSED)
        scripted.complete()
        assert context.run_callbacks() == 1
        assert job.start() is JobStatus.FINISHED
    assert called == ["called", "called"]


def test_callback_that_is_not_set(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(callback=True))
    job = Job(key.sign, b"document")
    job.start()
    assert len(job.wait_context.get_all_fds()) == 1
    scripted.complete()
    assert job.start() is JobStatus.FINISHED


# Where there is nothing to pause


@pytest.mark.parametrize("step", [HELD, Script(pauses=3, fds=3), Script(told=False, false_wakes=2)])
def test_outside_a_job(scripted: ScriptedProvider, key: Key, step: Script) -> None:
    scripted.script(step)
    assert key.sign(b"document")
    assert scripted.counts() == Counts(1, 1, 0, 0, 0, 0, 0, 0)


def test_failure_outside_a_job(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(fails=True))
    with pytest.raises(ShimError, match="the script says that this operation fails"):
        key.sign(b"document")
    assert key.sign(b"document")


@pytest.mark.parametrize("step", [HELD, Script(told=False, false_wakes=2), Script(pauses=3)])
def test_pausing_is_blocked(scripted: ScriptedProvider, key: Key, step: Script) -> None:
    scripted.script(step)
    with Job(key.sign, b"document", block_pause=True) as job:
        assert job.start() is JobStatus.FINISHED
        assert job.result()
    assert scripted.counts().pauses == 0


# Who frees what


def test_ssl_freed_under_an_operation(scripted: ScriptedProvider, identity: Identity, key: Key) -> None:
    """As applications do that know nothing of jobs: the job is lost, and the provider says so."""
    scripted.script(HELD)
    context = server_context(identity, key)
    context.set_mode(ASYNC)
    with Pair(context, client_context(identity)) as pair:
        careless = SSL.Connection(context, pair.near)
        careless.set_accept_state()
        pair.step_client()
        with pytest.raises(SSL.Error):
            careless.do_handshake()
        assert len(scripted.waiting()) == 1
        del careless
        gc.collect()
    counts = scripted.counts()
    assert (counts.orphaned, counts.alive, counts.fds_open) == (1, 0, 0)
    assert scripted.waiting() == ()
    scripted.release_all()


def test_told_from_another_thread(scripted: ScriptedProvider, key: Key) -> None:
    scripted.script(Script(pauses=20))
    job = Job(key.sign, b"document")

    def tell() -> None:
        for _ in range(20):
            scripted.wait()
            scripted.complete()

    thread = threading.Thread(target=tell)
    thread.start()
    while job.start() is JobStatus.PAUSED:
        assert select.select(job.wait_context.get_all_fds(), [], [], 30)[0]
    thread.join()
    assert scripted.counts().completed == 1


def test_wait_in_vain(scripted: ScriptedProvider) -> None:
    with pytest.raises(TimeoutError, match="0 operations wait after 0 s, not 1"):
        scripted.wait(seconds=0)


# Misuse


def test_one_at_a_time(scripted: ScriptedProvider) -> None:
    with pytest.raises(RuntimeError, match="close it first"):
        ScriptedProvider()
    scripted.close()
    scripted.close()
    with ScriptedProvider() as another:
        assert another.counts().started == 0


def test_one_that_could_not_be_opened_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        message = "scripted"
        raise EngineUnavailableError(message)

    with monkeypatch.context() as patch:
        patch.setattr("tlsserver.testing.scripted.OpenSSLProvider", refuse)
        with pytest.raises(EngineUnavailableError):
            ScriptedProvider()
    ScriptedProvider().close()


@pytest.mark.parametrize("wrong", [{"pauses": -1}, {"fds": 4}, {"fds": -1}, {"false_wakes": -1}])
def test_script_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Script(**wrong)  # type: ignore[arg-type]


def test_script_whose_callback_would_come_on_the_jobs_stack() -> None:
    with pytest.raises(ValueError, match="leave told=True"):
        Script(callback=True, told=False)


def test_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(RuntimeError, match="was not built"):
        control.module_path()
