"""Wait contexts: ASYNC_WAIT_CTX_new(3), of one's own and a connection's."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from engine_shim import (
    BadDescriptorError,
    BusyError,
    ChangedFds,
    Job,
    JobStatus,
    ManualEngine,
    UnknownWaitKeyError,
    WaitContext,
    WaitContextFreedError,
    WaitFd,
    WaitStatus,
)
from engine_shim.native import ffi, lib
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def other() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def context() -> Iterator[WaitContext]:
    with WaitContext() as context:
        yield context


# Fds


def test_an_fd_is_found_by_its_key(context: WaitContext, pipe: Pipe, other: Pipe) -> None:
    data = object()
    context.set_wait_fd("first", pipe.read, data)
    context.set_wait_fd(("second", 2), other.read)
    assert context.get_fd("first") == WaitFd(pipe.read, data)
    assert context.get_fd(("second", 2)) == WaitFd(other.read, None)
    assert context.get_all_fds() == (other.read, pipe.read)


def test_an_empty_context_has_nothing(context: WaitContext) -> None:
    assert context.get_all_fds() == ()
    assert context.get_changed_fds() == ChangedFds((), ())
    assert context.get_status() == 0
    assert not context.busy


def test_clear_takes_one_fd_away(context: WaitContext, pipe: Pipe, other: Pipe) -> None:
    context.set_wait_fd("first", pipe.read)
    context.set_wait_fd("second", other.read)
    context.clear_fd("first")
    assert context.get_all_fds() == (other.read,)
    with pytest.raises(UnknownWaitKeyError, match="'first'"):
        context.get_fd("first")


def test_a_second_fd_under_a_key_hides_the_first(context: WaitContext, pipe: Pipe, other: Pipe) -> None:
    context.set_wait_fd("key", pipe.read, "old")
    context.set_wait_fd("key", other.read, "new")
    assert context.get_fd("key") == WaitFd(other.read, "new")
    assert context.get_all_fds() == (other.read, pipe.read)
    context.clear_fd("key")
    assert context.get_fd("key") == WaitFd(pipe.read, "old")


@pytest.mark.parametrize("call", ["get_fd", "clear_fd"])
def test_an_unknown_key_changes_nothing(context: WaitContext, pipe: Pipe, call: str) -> None:
    context.set_wait_fd("known", pipe.read)
    with pytest.raises(UnknownWaitKeyError, match="'unknown'"):
        getattr(context, call)("unknown")
    assert context.get_all_fds() == (pipe.read,)


@pytest.mark.parametrize("fd", ["closed", -1, 1 << 40])
def test_a_closed_fd_is_refused_and_changes_nothing(context: WaitContext, pipe: Pipe, fd: Any) -> None:
    if fd == "closed":
        fd = os.dup(pipe.read)
        os.close(fd)
    with pytest.raises(BadDescriptorError, match="not an open file descriptor"):
        context.set_wait_fd("key", fd)
    assert context.get_all_fds() == ()
    assert context.get_changed_fds() == ChangedFds((), ())


def test_a_key_of_c_code_is_its_address(context: WaitContext, pipe: Pipe) -> None:
    address = ffi.new("char *")
    number = int(ffi.cast("uintptr_t", address))
    assert lib.wait_set_fd(context._context, address, pipe.read, 12345) == lib.SHIM_OK
    assert context.get_fd(number) == WaitFd(pipe.read, 12345)
    context.clear_fd(number)
    assert context.get_all_fds() == ()


def test_changes_are_told_until_a_paused_job_is_resumed(
    context: WaitContext, pipe: Pipe, manual: ManualEngine, identity: Identity
) -> None:
    context.set_wait_fd("mine", pipe.read)
    assert context.get_changed_fds() == ChangedFds((pipe.read,), ())
    job = Job(manual.load_key(identity.key).sign, b"data", context)
    assert job.start() is JobStatus.PAUSED
    assert pipe.read in context.get_changed_fds().added
    manual.wake()
    assert job.start() is JobStatus.PAUSED  # resumed for nothing
    assert context.get_changed_fds() == ChangedFds((), ())
    context.clear_fd("mine")
    assert context.get_changed_fds() == ChangedFds((), (pipe.read,))
    manual.perform()
    assert job.start() is JobStatus.FINISHED


def test_status_is_what_was_set(context: WaitContext) -> None:
    for status in reversed(WaitStatus):
        context.set_status(status)
        assert context.get_status() == status


# Cleanup


def test_the_cleanup_routine_runs_on_free(pipe: Pipe, other: Pipe) -> None:
    ran: list[tuple[Any, ...]] = []
    context = WaitContext()
    context.set_wait_fd("first", pipe.read, "data", lambda *told: ran.append(told))
    context.set_wait_fd("second", other.read, None, lambda *told: ran.append(told))
    context.free()
    assert sorted(ran, key=lambda told: told[1]) == [
        (context, "first", pipe.read, "data"),
        (context, "second", other.read, None),
    ]
    context.free()
    assert len(ran) == 2


def test_the_cleanup_routine_does_not_run_on_clear(pipe: Pipe) -> None:
    ran: list[Any] = []
    with WaitContext() as context:
        context.set_wait_fd("key", pipe.read, None, lambda *told: ran.append(told))
        context.clear_fd("key")
    assert ran == []


def test_a_context_that_nobody_has_is_freed_with_its_fds(pipe: Pipe) -> None:
    ran: list[Any] = []
    context = WaitContext()
    context.set_wait_fd("key", pipe.read, "data", lambda *told: ran.append(told))
    del context
    gc.collect()
    assert ran == [(None, "key", pipe.read, "data")]


def test_nothing_is_kept_of_what_is_freed(pipe: Pipe) -> None:
    from engine_shim.wait import _entries  # noqa: PLC0415 - the registry

    before = len(_entries)
    for _ in range(10):
        with WaitContext() as context:
            context.set_wait_fd("cleared", pipe.read)
            context.set_wait_fd("freed", pipe.read)
            context.clear_fd("cleared")
    assert len(_entries) == before


# Misuse


@pytest.mark.parametrize(
    "use",
    [
        lambda context: context.set_wait_fd("key", 0),
        lambda context: context.get_fd("key"),
        lambda context: context.clear_fd("key"),
        lambda context: context.get_all_fds(),
        lambda context: context.get_changed_fds(),
        lambda context: context.set_status(1),
        lambda context: context.get_status(),
        lambda context: context.set_callback(print),
    ],
)
def test_a_freed_context_is_refused(use: Any) -> None:
    context = WaitContext()
    context.free()
    with pytest.raises(WaitContextFreedError, match="freed"):
        use(context)


def test_a_context_in_use_is_neither_freed_nor_given_to_a_second_job(manual: ManualEngine, identity: Identity) -> None:
    key = manual.load_key(identity.key)
    context = WaitContext()
    first, second = Job(key.sign, b"first", context), Job(key.sign, b"second", context)
    assert first.start() is JobStatus.PAUSED
    fds = context.get_all_fds()
    with pytest.raises(BusyError, match="another job"):
        second.start()
    with pytest.raises(BusyError, match="end the job before"):
        context.free()
    assert context.get_all_fds() == fds
    assert manual.pending == 1
    manual.perform()
    assert first.start() is JobStatus.FINISHED
    assert second.start() is JobStatus.PAUSED  # free for the next one
    manual.perform()
    assert second.start() is JobStatus.FINISHED
    context.free()


# Callbacks


def test_a_callback_is_called_when_the_engine_has_called_back(manual: ManualEngine, identity: Identity) -> None:
    called: list[object] = []
    with WaitContext() as context:
        assert (context.callback_fd, context.get_callback()) == (-1, None)
        context.set_callback(called.append, "argument")
        assert context.get_callback() == (called.append, ("argument",))
        job = Job(manual.load_key(identity.key).sign, b"data", context)
        assert job.start() is JobStatus.PAUSED
        assert context.run_callbacks() == 0
        manual.perform()
        assert readable([context.callback_fd])
        assert called == []  # nobody calls Python but run_callbacks
        assert context.run_callbacks() == 1
        assert called == ["argument"]
        assert context.run_callbacks() == 0
        assert job.start() is JobStatus.FINISHED


def test_a_callback_from_a_thread_of_the_engines(context: WaitContext, identity: Identity) -> None:
    where: list[threading.Thread] = []
    context.set_callback(lambda: where.append(threading.current_thread()))
    with engine_shim.ThreadEngine(1) as engine:
        job = Job(engine.load_key(identity.key).sign, b"data", context)
        assert job.start() is JobStatus.PAUSED
        assert readable([context.callback_fd], PATIENCE)
        assert context.run_callbacks() == 1
        assert where == [threading.current_thread()]
        assert job.start() is JobStatus.FINISHED


def test_no_callback_any_more(context: WaitContext, manual: ManualEngine, identity: Identity) -> None:
    context.set_callback(pytest.fail, "called")
    context.set_callback(None)
    assert context.get_callback() is None
    assert not lib.wait_has_callback(context._context)
    job = Job(manual.load_key(identity.key).sign, b"data", context)
    assert job.start() is JobStatus.PAUSED
    manual.perform()
    assert context.run_callbacks() == 0
    assert job.start() is JobStatus.FINISHED


def test_signals_are_used_again(manual: ManualEngine) -> None:
    del manual

    def one() -> int:
        with WaitContext() as context:
            context.set_callback(print)
            return context.callback_fd

    assert len({one() for _ in range(10)}) == 1
