"""What all signers have in common: a name, a fallback, and numbers."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from engine_shim import EngineError, ShimError, SignerEngine
from tlsserver.errors import ConfigurationError
from tlsserver.stats import HistogramSnapshot, SignerNumbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim import Key, SignRequest
    from engine_shim.signer import Times

logger = logging.getLogger(__name__)

__all__ = ["DEADLINE", "Signer", "snapshot_of"]

# Seconds. Half of what a handshake has (ServerConfig.timeout_handshake is 10): the client still hears why it failed.
DEADLINE = 5.0


class Signer(SignerEngine):
    """Base of the signers: an engine whose requests the subclass answers.

    Args:
        name: As ``--offload`` has it.
        deadline: Seconds for each op; see `engine_shim.SignerEngine`.
        queue_size: Ops that may wait to be taken; see there.
        can_block: Whether other threads answer; see there.
        fallback: Private keys of this process that perform what the signer does not. None: the handshake fails instead,
            which is what whoever keeps keys elsewhere mostly wants.

    Raises:
        ConfigurationError: A setting cannot work.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        name: str,
        *,
        deadline: float = DEADLINE,
        queue_size: int = 1024,
        can_block: bool = False,
        fallback: Key | Sequence[Key] | None = None,
    ) -> None:
        try:
            super().__init__(queue_size=queue_size, deadline=deadline, can_block=can_block)
        except ValueError as error:
            message = f"signer {name} cannot be made: {error}"
            raise ConfigurationError(message) from error
        self._name = name
        keys = () if fallback is None else fallback if isinstance(fallback, (list, tuple)) else (fallback,)
        self._fallback: dict[bytes, Key] = {key.key_id: key for key in keys}
        self._begin_fallback()
        if any(key.is_public for key in keys):
            message = f"the fallback of signer {name} is a public key: give a private one, loaded by another engine"
            raise ConfigurationError(message)
        _signers.add(self)

    def _begin_fallback(self) -> None:
        """Have performed nothing yet; here and in a forked child, which has neither the parent's locks nor threads."""
        self._fallback_lock = threading.Lock()
        self._performer: ThreadPoolExecutor | None = None
        self._fallbacks = 0
        self._uncounted = 0  # failures that the engine does not count; less than 0: it counts some of them twice

    @property
    def name(self) -> str:
        """The signer, as ``--offload`` names it."""
        return self._name

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Take a snapshot of the numbers of each signer behind the engine; here it is one. Any thread."""
        with self._fallback_lock:
            fallbacks, uncounted = self._fallbacks, self._uncounted
        times = self.signer_times()
        return (
            SignerNumbers(
                name=self._name,
                in_flight=self.statistics().in_flight,
                taken=times.taken,
                performed=max(times.completed - fallbacks, 0),
                failed=max(times.refused + times.wrong + times.expired + uncounted, 0),
                fallbacks=fallbacks,
                queue_seconds=snapshot_of(times.queue),
                run_seconds=snapshot_of(times.run),
                total_seconds=snapshot_of(times.total),
            ),
        )

    def give_up(self, request: SignRequest, reason: str, *, is_counted: bool = False) -> None:
        """Perform a request with the fallback, on a thread of its own; without one, let it fail. Any thread.

        Nothing happens if nobody waits for it any more.

        Args:
            request: What no signer answers.
            reason: Why, in one line for the log.
            is_counted: The engine has counted the failure: it was a wrong answer.
        """
        key = self._fallback.get(request.key_id) if self._fallback else None
        with contextlib.suppress(EngineError):
            if key is None or not self._hand_over(request, key, is_counted=is_counted):
                request.fail(reason)
                self._count(fallbacks=0, uncounted=-is_counted)

    def close(self, timeout: float = 5.0) -> bool:
        """Stop it: what waits for an answer fails."""
        ended = super().close(timeout)
        with self._fallback_lock:
            performer, self._performer = self._performer, None
        if performer is not None:
            performer.shutdown(wait=True)
        return ended

    def _hand_over(self, request: SignRequest, key: Key, *, is_counted: bool) -> bool:
        """Let the fallback's thread have it. One thread: it is an emergency, and the loop goes first."""
        try:
            with self._fallback_lock:
                if self.closed:
                    return False
                if self._performer is None:
                    self._performer = ThreadPoolExecutor(1, "tls-fallback")
                self._performer.submit(self._perform_here, request, key, is_counted=is_counted)
        except RuntimeError:  # no thread is to be had, or the interpreter ends
            return False
        return True

    def _perform_here(self, request: SignRequest, key: Key, *, is_counted: bool) -> None:
        self._count(fallbacks=1, uncounted=not is_counted)  # before whoever waits can look at the numbers
        try:
            request.perform(key)
        except EngineError:  # the client has left meanwhile, or it has failed, which the op says
            self._count(fallbacks=-1, uncounted=-(not is_counted))
        except Exception as error:
            self._count(fallbacks=-1, uncounted=-(not is_counted))
            logger.exception("signer %s: the fallback fails", self._name)
            with contextlib.suppress(ShimError):
                request.fail(f"the fallback fails: {type(error).__name__}")

    def _count(self, *, fallbacks: int, uncounted: int) -> None:
        with self._fallback_lock:
            self._fallbacks += fallbacks
            self._uncounted += uncounted


def snapshot_of(times: Times) -> HistogramSnapshot:
    """Return the shim's histogram as statistics have it."""
    return HistogramSnapshot(times.bounds, times.counts, sum(times.counts), times.sum)


_signers: weakref.WeakSet[Signer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for signer in tuple(_signers):
        signer._begin_fallback()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)
