"""Engines: where private-key operations run.

Every engine queues ops, performs them away from the loop, and answers by making a wait fd readable.
``tests/test_engine_contract.py`` says what each of them must do.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.base import BaseEngine, NativeEngine
from engine_shim.batches import LANES, batch_lanes, describe_batches
from engine_shim.key import Key, read_source
from engine_shim.native import check, ffi, lib

if TYPE_CHECKING:
    from pathlib import Path

# An hour of waiting is a mistake in the caller's units, and 2**63 ns would overflow.
_LONGEST_LATENCY = 3600.0
_MOST_THREADS = 1024
_UNKNOWN = 2 ** (8 * ffi.sizeof("size_t")) - 1  # SIZE_MAX


logger = logging.getLogger(__name__)


class Engine(BaseEngine):
    """Base of every engine; made by its subclasses."""

    @abstractmethod
    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Load a private key whose operations this engine performs."""


class _ShimEngine(NativeEngine, Engine):
    """Base of the shim's own engines."""

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Load a private key whose operations this engine performs.

        Args:
            source: A file's path, or the key itself as PEM or DER bytes.
            password: Decrypts an encrypted PEM key (PKCS#8 or traditional).

        Returns:
            The key. It keeps the engine alive.

        Raises:
            KeyPasswordError: The key is encrypted, and the password is missing or wrong.
            KeyLoadError: There is no key, or it is of a kind that cannot be wrapped.
            OSError: The file cannot be read.
        """
        data, secret, what = read_source(source, password)
        out = ffi.new("struct key **")
        given = ffi.NULL if secret is None else ffi.from_buffer(secret)
        check(lib.key_load(self._handle, ffi.from_buffer(data), len(data), given, len(secret or b""), out), what)
        return Key(self, out[0])


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless a setting lies between two bounds."""
    if not low <= value <= high:
        message = f"{name} is {value}, it must be between {low} and {high}"
        raise ValueError(message)


class ThreadEngine(_ShimEngine):
    """Native threads that perform one op each at a time, without the GIL.

    Args:
        threads: Number of threads. They start with the first op.
        queue_size: Ops that may be queued; more wait in their connections, in order.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ValueError: A number is out of range.
    """

    def __init__(self, threads: int = 2, *, queue_size: int = 1024) -> None:
        check_range("threads", threads, 1, _MOST_THREADS)
        check_range("queue_size", queue_size, 1, 1 << 20)
        linkage.attach()
        super().__init__(lib.engine_new_threads(threads, queue_size))


class BatchEngine(_ShimEngine):
    """Performs what waits together: up to eight signatures of one kind at once, in the lanes of AVX-512.

    RSA with 2048, 3072 and 4096 bits and public exponent 65537, and ECDSA with P-256. Whatever else there is, and
    whatever is too little for a batch to pay, OpenSSL performs one by one. Without AVX-512 IFMA that is everything:
    see :attr:`lanes`.

    Args:
        threads: Number of threads. They start with the first op. 0: the loop's own thread performs, at the end of its
            turns, at most one batch a turn (:meth:`turn`); the servers of tlsserver do it by themselves.
        queue_size: Ops that may be queued, at least one batch of eight; more wait in their connections, in order.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ValueError: A number is out of range.
    """

    def __init__(self, threads: int = 1, *, queue_size: int = 1024) -> None:
        check_range("threads", threads, 0, _MOST_THREADS)
        check_range("queue_size", queue_size, LANES, 1 << 20)
        linkage.attach()
        self._threads = threads
        super().__init__(lib.engine_new_batch(threads, queue_size))
        if not self.lanes:
            logger.warning("engine batch: no batches here (%s): OpenSSL performs one by one", self.description)

    @property
    def lanes(self) -> int:
        """Ops that one batch can hold: 8, or 0 where this build or this CPU has no batches."""
        return batch_lanes()

    @property
    def description(self) -> str:
        """What computes the batches, or why nothing does; one line."""
        return describe_batches()

    @property
    def needs_turns(self) -> bool:
        """Whether the loop's thread performs."""
        return self._threads == 0

    def turn(self, in_progress: int | None = None, *, patient: bool = False) -> int:
        """Perform one batch, or one op alone; see :meth:`BaseEngine.turn`. Any thread."""
        known = _UNKNOWN if in_progress is None else in_progress
        return int(lib.batch_turn(self._handle, known, patient))


class LatencyEngine(_ShimEngine):
    """A simulated accelerator: performs natively, and answers no earlier than ``seconds`` after it was asked.

    Args:
        seconds: The latency, in seconds.
        threads: Native threads that perform; any number of ops is in flight.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ValueError: A number is out of range.
    """

    def __init__(self, seconds: float, *, threads: int = 1) -> None:
        check_range("seconds", seconds, 0, _LONGEST_LATENCY)
        check_range("threads", threads, 1, _MOST_THREADS)
        linkage.attach()
        super().__init__(lib.engine_new_latency(seconds, threads))


class ManualEngine(_ShimEngine):
    """The engine of the tests: performs an op only when told to, on the thread that tells it.

    The order of completion is the test's to choose. It cannot block: an op outside a job is refused.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(self) -> None:
        linkage.attach()
        super().__init__(lib.engine_new_manual())

    @property
    def pending(self) -> int:
        """Ops that wait to be performed."""
        return int(lib.manual_pending(self._handle))

    @property
    def begun(self) -> int:
        """Ops that are performed and whose result is held back."""
        return int(lib.manual_begun(self._handle))

    def perform(self, index: int = 0) -> None:
        """Perform a pending op and deliver its result (0 is the oldest). Raises IndexError if there is none."""
        check(lib.manual_perform(self._handle, index), "perform")

    def begin(self, index: int = 0) -> None:
        """Perform a pending op and hold its result back. Raises IndexError if there is none."""
        check(lib.manual_begin(self._handle, index), "begin")

    def deliver(self, index: int = 0) -> None:
        """Deliver a result that was held back. Raises IndexError if there is none."""
        check(lib.manual_deliver(self._handle, index), "deliver")

    def fail(self, index: int = 0) -> None:
        """End a pending op without a result. Raises IndexError if there is none."""
        check(lib.manual_fail(self._handle, index), "fail")

    def wake(self, index: int = 0) -> None:
        """Make a pending op's wait fd readable for nothing. Raises IndexError if there is none."""
        check(lib.manual_wake(self._handle, index), "wake")
