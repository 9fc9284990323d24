"""A signer that is a function: `sign(request) -> bytes`, plain or a coroutine function.

The shape is that of gRPC's proposal A107 (TLS private key offload): the function may answer at once or later, is told
the algorithm by name, says by an exception why it has no answer, and hears of it when nobody wants one any more.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from tlsserver.errors import ConfigurationError
from tlsserver.signers.base import DEADLINE, Signer
from tlsserver.signers.breaker import Breaker
from tlsserver.signers.callable_calls import Calls, RequestRefusedError
from tlsserver.signers.callable_tasks import LoopTasks
from tlsserver.signers.callable_threads import WorkerThreads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from engine_shim import Key, SignRequest
    from tlsserver.stats import SignerNumbers

__all__ = ["CallableSigner", "RequestRefusedError"]

# A signer that is asked over a network takes tens of milliseconds: with eight threads that is some hundred
# handshakes a second. A task costs less than a thread.
_THREADS = 8
_CONCURRENCY = 256

_MOST_THREADS = 1024
_MOST_ATTEMPTS = 100


class CallableSigner(Signer):
    """An engine whose requests a function answers.

    ::

        def sign(request: SignRequest) -> bytes:
            return kms.sign(KEY_ID, request.scheme, request.digest)

        with CallableSigner(sign, threads=16) as signer:
            context = TLSContext("server.crt", signer.load_key("server.crt"))

    It runs until it is closed. A forked child has threads, breaker and numbers of its own.

    Args:
        function: Takes a `engine_shim.SignRequest`, and returns the answer: a signature as TLS has it (ECDSA: DER), or
            of a decryption ``c ** d mod n``, as long as the modulus. What it raises is a failure, which is told in the
            log, once a minute for each kind, and tried again; `RequestRefusedError` is not. A plain function is called
            on threads of the signer's own, a coroutine function is awaited on an event loop, and cancelled when nobody
            waits any more. A plain one may look at ``request.is_open``.
        threads: How many calls of a plain function at once. They start as they are needed. One that has not returned
            by its request's deadline counts no more, so there may be twice as many.
        loop: Where a coroutine function is awaited; None: on a loop of the signer's own, on a thread. With a loop
            given, an op outside a handshake (`engine_shim.Key.sign`) does not wait for it: `engine_shim.NoJobError`.
        concurrency: How many calls of a coroutine function at once.
        name: For messages and numbers.
        attempts: How often a request is tried at most, while its deadline allows it.
        deadline: Seconds for each op, all tries together.
        queue_size: Ops that may wait for a thread or a task; more wait in their connections.
        fallback: Private keys of this process that perform what the function does not. None: the handshake fails.
        breaker_failures: So many failures in a row, and the function is not asked for a while.
        breaker_seconds: How long; then one request is the trial.

    Raises:
        ConfigurationError: A setting cannot work.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        function: Callable[[SignRequest], bytes] | Callable[[SignRequest], Awaitable[bytes]],
        *,
        threads: int = _THREADS,
        loop: asyncio.AbstractEventLoop | None = None,
        concurrency: int = _CONCURRENCY,
        name: str = "callable",
        attempts: int = 2,
        deadline: float = DEADLINE,
        queue_size: int = 1024,
        fallback: Key | Sequence[Key] | None = None,
        breaker_failures: int = 5,
        breaker_seconds: float = 1.0,
    ) -> None:
        _check(name, "threads", threads, _MOST_THREADS)
        _check(name, "concurrency", concurrency, 1 << 20)
        _check(name, "attempts", attempts, _MOST_ATTEMPTS)
        _check(name, "breaker_failures", breaker_failures, 1 << 20)
        self._function: Any = function
        self._awaits = _is_coroutine_function(function)
        if not callable(function) or (loop is not None and not self._awaits):
            kind = "function" if loop is None else "coroutine function, which is what a loop is for"
            told = type(function).__name__  # and no more: it may be a key
            message = f"signer {name} cannot be made of a {told}: give a {kind} that takes a request"
            raise ConfigurationError(message)
        super().__init__(name, deadline=deadline, queue_size=queue_size, can_block=loop is None, fallback=fallback)
        self._threads = threads
        self._concurrency = concurrency
        self._loop = loop
        self._calls_settings = (breaker_failures, breaker_seconds, attempts)
        self._calls = self._new_calls()
        self._runner: WorkerThreads | LoopTasks | None = None
        self._starting = threading.Lock()
        self._parents: object = None
        _signers.add(self)

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Make a key whose private half is the function's; see `engine_shim.SignerEngine.load_key`."""
        key = super().load_key(source, password)
        self._start()
        return key

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Take a snapshot of the numbers; any thread."""
        (numbers,) = super().signers()
        calls = self._calls
        return (
            dataclasses.replace(
                numbers,
                state="down" if self.closed else "up",
                breaker=calls.breaker_state(),
                failed=numbers.failed + calls.unseen,
                retries=calls.retries,
            ),
        )

    def close(self, timeout: float = 5.0) -> bool:
        """Stop it: what waits for an answer fails, tasks are cancelled, threads end as their function returns.

        Args:
            timeout: How long to wait for all that, in seconds.

        Returns:
            Whether all has ended. A thread whose function never returns is left behind; it does not keep the process
            from ending.
        """
        until = time.monotonic() + timeout
        ended = super().close(timeout)
        with self._starting:
            runner = self._runner
        return (runner is None or runner.close(max(until - time.monotonic(), 0))) and ended

    def _start(self) -> None:
        with self._starting:
            if self._runner is None and not self.closed:
                self._runner = self._new_runner()

    def _new_calls(self) -> Calls:
        failures, seconds, attempts = self._calls_settings
        breaker = Breaker(failures, seconds)
        return Calls(self.name, breaker, attempts, give_up=self.give_up, has_fallback=self._has_fallback)

    def _new_runner(self) -> WorkerThreads | LoopTasks:
        if self._awaits:
            return LoopTasks(self, self._function, self._calls, self._concurrency, self._loop)
        return WorkerThreads(self, self._function, self._calls, self._threads)

    def _has_fallback(self, request: SignRequest) -> bool:
        return bool(self._fallback) and request.key_id in self._fallback

    def _after_fork(self) -> None:
        """Begin anew in the child: threads, locks and loop are the parent's.

        What the parent had is kept, and never touched: an event loop that is freed changes the set of descriptors that
        it shares with the parent.
        """
        parents = self._parents = (self._parents, self._runner)
        self._starting = threading.Lock()
        self._calls = self._new_calls()
        self._runner = None
        if parents[1] is None:
            return
        if self._loop is not None:
            self._loop = None
            self._function, self._awaits = _refuse_in_child, False
        self._start()


def _refuse_in_child(_: SignRequest) -> bytes:
    raise RequestRefusedError("its event loop is the parent process's: make the signer after the fork")


def _is_coroutine_function(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - of an object


def _check(name: str, setting: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        message = f"signer {name} cannot be made: {setting} is {value}, it must be between 1 and {most}"
        raise ConfigurationError(message)


_signers: weakref.WeakSet[CallableSigner] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for signer in tuple(_signers):
        if not signer.closed:
            signer._after_fork()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)
