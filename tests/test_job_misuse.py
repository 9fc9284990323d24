"""What must not crash: other threads, threads that have ended, the interpreter's end, a lack of descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import BusyError, Job, JobStatus, LatencyEngine, ManualEngine, WaitContext, WrongThreadError
from support.leaks import wait_until
from support.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity


def elsewhere(call: Callable[[], object]) -> list[BaseException]:
    """Call on another thread; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def program(code: str, *arguments: object) -> str:
    """Run a program to its end, without a word on stderr; return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_job_does_not_start_with_another_threads_wait_context(identity: Identity) -> None:
    with ManualEngine() as engine, WaitContext() as context:
        job = Job(engine.load_key(identity.key).sign, b"document", context)
        (error,) = elsewhere(job.start)
        assert isinstance(error, WrongThreadError)
        assert not context.busy
        assert engine.pending == 0


def test_nobody_disturbs_a_thread_in_its_job(identity: Identity) -> None:
    made: list[Job] = []
    results: list[bytes] = []
    with LatencyEngine(0.3) as engine:
        key = engine.load_key(identity.key)

        def own() -> None:
            made.append(Job(key.sign, b"document", WaitContext(), block_pause=True))
            assert made[0].start() is JobStatus.FINISHED
            results.append(made[0].result())

        owner = threading.Thread(target=own)
        owner.start()
        wait_until(lambda: engine.statistics().submitted)  # it waits in C, on the job's stack
        with pytest.raises(WrongThreadError):
            made[0].start()
        with pytest.raises(WrongThreadError):
            made[0].close()
        with pytest.raises(BusyError):
            made[0].wait_context.free()
        owner.join()
    assert results


@pytest.mark.parametrize(
    "use",
    [
        lambda context, fd: context.set_wait_fd("key", fd),
        lambda context, _: context.get_fd("key"),
        lambda context, _: context.clear_fd("key"),
        lambda context, _: context.get_all_fds(),
        lambda context, _: context.get_changed_fds(),
        lambda context, _: context.set_callback(print),
    ],
)
def test_a_wait_context_is_its_threads(use: Callable[[WaitContext, int], object], pipe: int) -> None:
    with WaitContext() as context:
        context.set_wait_fd("key", pipe)
        (error,) = elsewhere(lambda: use(context, pipe))
        assert isinstance(error, WrongThreadError)
        assert context.get_all_fds() == (pipe,)


def test_a_wait_context_may_be_freed_anywhere() -> None:
    context = WaitContext()
    assert elsewhere(context.free) == []


def test_a_thread_that_has_ended_takes_its_job_with_it(identity: Identity) -> None:
    told = program(
        """
import sys, threading, engine_shim
engine = engine_shim.ManualEngine()
key = engine.load_key(sys.argv[1])
jobs = []

def start():
    jobs.append(engine_shim.Job(key.sign, b"document", engine_shim.WaitContext()))
    jobs[0].start()

def resume():
    try:
        jobs[0].close()
    except engine_shim.WrongThreadError:
        print("refused")
    engine_shim.init_thread(2)

for call in (start, resume):  # the kernel and glibc give the second what the first has left
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
""",
        identity.key,
    )
    assert told == "refused\n"


def test_a_third_partys_job_at_exit(identity: Identity) -> None:
    told = program(
        """
import sys, engine_shim
from tlsserver.testing import HELD, ScriptedProvider
scripted = ScriptedProvider()
scripted.script(HELD)
job = engine_shim.Job(scripted.load_key(sys.argv[1]).sign, b"document", engine_shim.WaitContext())
print(job.start().name, job.close())
""",
        identity.key,
    )
    assert told == "PAUSED False\n"


def test_cleanup_routines_run_at_exit() -> None:
    told = program(
        """
import os, engine_shim
context = engine_shim.WaitContext()
context.set_wait_fd("key", os.pipe()[0], "data", lambda *told: print(told[1], told[3]))
"""
    )
    assert told == "key data\n"


def test_no_descriptor_left(identity: Identity) -> None:
    told = program(
        """
import errno, os, resource, sys, engine_shim
engine = engine_shim.ThreadEngine(1)
context = engine_shim.WaitContext()
job = engine_shim.Job(engine.load_key(sys.argv[1]).sign, b"document", context)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 64))
print(job.start().name)
try:
    os.read(os.open(".", os.O_RDONLY), 1)  # any other error meanwhile
except OSError:
    pass
try:
    job.result()
except OSError as error:
    print(errno.errorcode[error.errno])
""",
        identity.key,
    )
    assert told == "FINISHED\nEMFILE\n"


def test_keys_that_are_equal_are_not_the_same_address(pipe: int) -> None:
    ran: list[object] = []
    with WaitContext() as context:
        context.set_wait_fd(1.0, pipe, None, lambda *told: ran.append(told[1]))
        with pytest.raises(engine_shim.UnknownWaitKeyError):
            context.clear_fd(1)
        with pytest.raises(ValueError, match="is no address"):
            context.set_wait_fd(1 << 64, pipe)
    assert ran == [1.0]


def test_only_bytes_are_signed(identity: Identity) -> None:
    with ManualEngine() as engine, pytest.raises(TypeError):
        Job(engine.load_key(identity.key).sign, 5)  # type: ignore[arg-type] # bytes(5) would be five zeros


def test_a_status_that_is_none() -> None:
    with WaitContext() as context, pytest.raises(ValueError, match="WaitStatus"):
        context.set_status(1 << 40)
