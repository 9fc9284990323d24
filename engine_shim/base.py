"""What a key knows of its engine, and every engine has: its handle, its numbers and its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine_shim.native import ffi, lib, raise_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from engine_shim.loops import Loop

__all__ = ["BaseEngine", "EngineStatistics", "NativeEngine"]


@dataclass(frozen=True)
class EngineStatistics:
    """What an engine has done, and has in hand.

    Attributes:
        submitted: Ops that connections asked for.
        performed: Ops whose result was delivered.
        failed: Ops that ended without a result: an error of OpenSSL's, or the engine was closed.
        cancelled: Ops that their connection gave up before the result was used.
        queue_full: Ops that had to wait for room in the queue.
        queued: Now in the queue.
        waiting: Now waiting for room in the queue.
        in_flight: Now begun and not yet delivered.
        in_flight_max: The most that were ever submitted and not yet delivered.
        batches: Batches performed in lanes.
        batched: Ops in them; ``batched / batches`` is how full they were.
        recomputed: Of these, ops whose result was wrong, so that OpenSSL performed them instead.
        turn_max_ns: The longest that the engine held up the loop's thread, in nanoseconds.
    """

    submitted: int
    performed: int
    failed: int
    cancelled: int
    queue_full: int
    queued: int
    waiting: int
    in_flight: int
    in_flight_max: int
    batches: int = 0
    batched: int = 0
    recomputed: int = 0
    turn_max_ns: int = 0


class BaseEngine(ABC):
    """An engine as its keys, contexts and servers know it. A context manager: leaving it closes the engine."""

    _closed = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The engine, as ``--offload`` names it."""

    @property
    @abstractmethod
    def can_block(self) -> bool:
        """Whether an op outside any job may wait for this engine on the calling thread."""

    @property
    def needs_turns(self) -> bool:
        """Whether the engine has no thread of its own: the loop that waits for it calls :meth:`turn`."""
        return False

    def turn(self, in_progress: int | None = None, *, patient: bool = False) -> int:
        """Perform a part of what is queued, on this thread: for the end of a loop's turn, where :attr:`needs_turns`.

        Args:
            in_progress: Handshakes of this loop that are in progress, queued here or not. With too few for a batch, ops
                are performed when they are asked for, without a pause. None: unknown, and every op pauses.
            patient: Leave a batch with room in it for the next turn, if there are handshakes that may join it.

        Returns:
            Number of ops left in the queue. If there are any, the loop does not wait before the next turn.
        """
        del in_progress, patient
        return 0

    def join(self, loop: Loop) -> Callable[[], object] | None:
        """Serve the connections of one more loop: for engines that do their I/O where they are waited for.

        Called on the loop's thread, once, before the first of its connections has an op.

        Returns:
            What ends it, for when the loop ends; None: there is nothing to end.
        """
        del loop
        return None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @abstractmethod
    def statistics(self) -> EngineStatistics:
        """Take a snapshot of the engine's counters; any thread."""

    @abstractmethod
    def close(self, timeout: float = 5.0) -> bool:
        """Stop the engine. Returns whether all of it has ended within ``timeout`` seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class NativeEngine(BaseEngine):
    """An engine of the shim's own: ops, queue and workers are in C, and every op can be cancelled."""

    _handle: Any

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - cffi's pointers have no types
        if handle == ffi.NULL:
            raise_status(lib.SHIM_ERR_MEMORY, "making an engine")
        self._handle = ffi.gc(handle, lib.engine_free)

    @property
    def name(self) -> str:
        """The engine's kind, as ``--offload`` names it."""
        return str(ffi.string(lib.engine_name(self._handle)).decode())

    @property
    def can_block(self) -> bool:
        """Whether an op outside any job may wait for this engine on the calling thread."""
        return bool(lib.engine_can_block(self._handle))

    def statistics(self) -> EngineStatistics:
        """Take a snapshot of the engine's counters; any thread."""
        raw = ffi.new("struct engine_statistics *")
        lib.engine_statistics(self._handle, raw)
        return EngineStatistics(**{name: getattr(raw, name) for name in EngineStatistics.__dataclass_fields__})

    def close(self, timeout: float = 5.0) -> bool:
        """Stop the engine: what is queued fails, what is being performed ends.

        Args:
            timeout: How long to wait for the workers, in seconds.

        Returns:
            Whether every worker has ended in time.
        """
        self._closed = True
        return bool(lib.engine_close(self._handle, timeout))
