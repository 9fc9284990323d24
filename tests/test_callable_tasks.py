"""Coroutine functions on an event loop, the signer's or one's own; tasks that nobody waits for are cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from engine_shim import Job, NoJobError, Status
from support import leaks
from support.asking import said
from support.functions import LaterFunction, pair_with
from support.waiting import PATIENCE
from tlsserver.errors import ConfigurationError
from tlsserver.signers.callable import CallableSigner

if TYPE_CHECKING:
    from engine_shim import SignRequest
    from support.certificates import Certificates, Identity
    from support.pair import Pair

LONG = 600.0
SHORT = 0.1


pytestmark = pytest.mark.usefixtures("no_ops_left", "no_threads_left")


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


class Waiting:
    """Waits for what does not come, and counts who came and who was cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.stays = False  # whoever is cancelled goes on as if nothing had been

    async def __call__(self, request: SignRequest) -> None:
        del request
        self.begun.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            if not self.stays:
                raise


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_task_is_cancelled_when_the_client_leaves(identity: Identity, waiting: Waiting) -> None:
    with CallableSigner(LaterFunction(identity, waiting), deadline=LONG, breaker_failures=1) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            assert waiting.begun.acquire(timeout=PATIENCE)
            assert not waiting.cancelled.acquire(blocking=False)
        assert waiting.cancelled.acquire(timeout=PATIENCE)
        assert signer.signers()[0].breaker == "closed"  # it was not the function's fault


def test_task_is_cancelled_at_the_deadline(identity: Identity, waiting: Waiting) -> None:
    with CallableSigner(LaterFunction(identity, waiting), deadline=SHORT, breaker_failures=1) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.ERROR
        assert waiting.cancelled.acquire(timeout=PATIENCE)
        leaks.wait_until(lambda: signer.signers()[0].breaker != "closed")
        assert signer.signers()[0].breaker != "closed"  # it was too slow


def test_tasks_are_cancelled_when_the_signer_is_closed(identity: Identity, waiting: Waiting) -> None:
    signer = CallableSigner(LaterFunction(identity, waiting), deadline=LONG)
    with pair_with(signer, identity) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        assert waiting.begun.acquire(timeout=PATIENCE)
        assert signer.close()
        assert waiting.cancelled.acquire(timeout=PATIENCE)
        assert pair.finish() is Status.ERROR


def test_answer_in_spite_of_cancellation_is_left_alone(identity: Identity, waiting: Waiting) -> None:
    waiting.stays = True
    with CallableSigner(LaterFunction(identity, waiting), deadline=LONG) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            assert waiting.begun.acquire(timeout=PATIENCE)
        assert waiting.cancelled.acquire(timeout=PATIENCE)
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.retries) == (0, 0)


def test_concurrency_is_bounded_and_goes_on(identity: Identity) -> None:
    here = 0
    most = 0
    begun = threading.Semaphore(0)
    may_go = threading.Event()

    async def count(_: SignRequest) -> None:
        nonlocal here, most
        here += 1
        most = max(most, here)
        begun.release()
        await asyncio.get_running_loop().run_in_executor(None, may_go.wait)
        here -= 1

    with CallableSigner(LaterFunction(identity, count), concurrency=3, deadline=LONG) as signer:
        key = signer.load_key(identity.cert)
        jobs = [Job(key.sign, b"message") for _ in range(10)]
        for job in jobs:
            job.start()
        for _ in range(3):
            assert begun.acquire(timeout=PATIENCE)
        assert signer.signers()[0].in_flight == 3
        may_go.set()
        leaks.wait_until(lambda: signer.signers()[0].performed == 10)
        for job in jobs:
            job.start()
            assert job.result()
        assert most == 3


def test_crowd_that_leaves_is_all_cancelled(identity: Identity, waiting: Waiting) -> None:
    """More than the engine remembers by number."""
    count = 300
    with CallableSigner(LaterFunction(identity, waiting), concurrency=count, deadline=LONG) as signer:
        key = signer.load_key(identity.cert)
        jobs = [Job(key.sign, b"message") for _ in range(count)]
        for job in jobs:
            job.start()
        for _ in range(count):
            assert waiting.begun.acquire(timeout=PATIENCE)
        for job in jobs:
            job.close()
        for _ in range(count):
            assert waiting.cancelled.acquire(timeout=PATIENCE)
        leaks.wait_until(lambda: not signer._runner._tasks)  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_own_loop_outlives_the_end_of_the_process(identity: Identity, error: type[BaseException]) -> None:
    problems = [error()]

    def fail(_: SignRequest) -> None:
        if problems:
            raise problems.pop()

    with CallableSigner(LaterFunction(identity, fail)) as signer:
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.ERROR
            assert error.__name__ in said(pair)
        with pair_with(signer, identity) as pair:
            assert pair.finish() is Status.DONE


def test_cancellation_of_the_functions_own_is_a_failure(identity: Identity) -> None:
    def cancel(_: SignRequest) -> None:
        raise asyncio.CancelledError

    with CallableSigner(LaterFunction(identity, cancel), deadline=LONG) as signer, pair_with(signer, identity) as pair:
        assert pair.finish() is Status.ERROR
        assert "its task was cancelled" in said(pair)


async def finish_here(pair: Pair) -> Status:
    """Do a handshake on the loop that the signer uses as well."""
    loop = asyncio.get_running_loop()
    while (status := pair.until_parked()) is Status.WANT_ASYNC:
        (fd,) = pair.server.wait_fds()
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        await asyncio.wait_for(readable.wait(), PATIENCE)
        loop.remove_reader(fd)
    return status


def test_given_loop_is_used(identity: Identity) -> None:
    loops = []

    def remember(_: SignRequest) -> None:
        loops.append(asyncio.get_running_loop())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with CallableSigner(LaterFunction(identity, remember), loop=loop) as signer:
            with pytest.raises(NoJobError):
                signer.load_key(identity.cert).sign(b"the loop would wait for itself")
            with pair_with(signer, identity) as pair:
                assert await finish_here(pair) is Status.DONE
        assert loops == [loop]

    asyncio.run(main())


def finish(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop)))


@pytest.mark.parametrize("moment", ["running", "stopped", "closed"])
def test_given_loop_may_end_first(identity: Identity, waiting: Waiting, moment: str) -> None:
    loop = asyncio.new_event_loop()
    signer = CallableSigner(LaterFunction(identity, waiting), loop=loop, deadline=LONG)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with pair_with(signer, identity) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        assert waiting.begun.acquire(timeout=PATIENCE)
        if moment == "running":
            assert signer.close()
            assert waiting.cancelled.acquire(timeout=PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        if moment == "stopped":
            assert not signer.close()  # its task is cancelled once the loop runs again
            finish(loop)
        elif moment == "closed":
            (task,) = asyncio.all_tasks(loop)
            task.cancel()
            finish(loop)
            loop.close()
            assert signer.close()
        assert pair.finish() is Status.ERROR
    loop.close()


def test_closed_loop_is_refused(identity: Identity) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with (
        CallableSigner(LaterFunction(identity), loop=loop) as signer,
        pytest.raises(ConfigurationError, match="the event loop of signer callable is closed"),
    ):
        signer.load_key(identity.cert)


def test_child_of_a_fork_does_not_use_the_parents_loop(identity: Identity) -> None:
    loop = asyncio.new_event_loop()
    with CallableSigner(LaterFunction(identity), loop=loop, deadline=LONG) as signer:
        with pair_with(signer, identity) as pair:
            pass  # the key is loaded
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with pair_with(signer, identity) as pair:
                    code = 0 if pair.finish() is Status.ERROR and "make the signer after the fork" in said(pair) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loop.close()
