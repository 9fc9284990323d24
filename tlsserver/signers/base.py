"""What all signers have in common: a name, a fallback, and numbers."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from engine_shim import EngineError, SignerEngine
from tlsserver.errors import ConfigurationError
from tlsserver.stats import HistogramSnapshot, SignerNumbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim import Key, SignRequest
    from engine_shim.signer import Times

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
        self._fallen_back = 0
        self._performers: tuple[int, ThreadPoolExecutor] | None = None
        if any(key.is_public for key in keys):
            message = f"the fallback of signer {name} is a public key: give a private one, loaded by another engine"
            raise ConfigurationError(message)

    @property
    def name(self) -> str:
        """The signer, as ``--offload`` names it."""
        return self._name

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Take a snapshot of the numbers of each signer behind the engine; here it is one. Any thread."""
        times = self.signer_times()
        return (
            SignerNumbers(
                name=self._name,
                in_flight=self.statistics().in_flight,
                taken=times.taken,
                performed=times.completed,
                failed=times.refused + times.wrong + times.expired,
                fallbacks=self._fallen_back,
                queue_seconds=snapshot_of(times.queue),
                run_seconds=snapshot_of(times.run),
                total_seconds=snapshot_of(times.total),
            ),
        )

    def give_up(self, request: SignRequest, reason: str) -> None:
        """Perform a request with the fallback, on a thread of its own; without one, let it fail. Any thread.

        Nothing happens if nobody waits for it any more.

        Args:
            request: What no signer answers.
            reason: Why, in one line for the log.
        """
        key = self._fallback.get(request.key_id) if self._fallback else None
        with contextlib.suppress(EngineError):
            if key is None or self.closed:
                request.fail(reason)
            else:
                self._fallen_back += 1
                self._executor().submit(_perform, request, key)

    def close(self, timeout: float = 5.0) -> bool:
        """Stop it: what waits for an answer fails."""
        ended = super().close(timeout)
        if self._performers is not None and self._performers[0] == os.getpid():
            self._performers[1].shutdown(wait=True)
        return ended

    def _executor(self) -> ThreadPoolExecutor:
        """One thread: it is an emergency, and the loop goes first. A forked child needs one of its own."""
        performers = self._performers
        if performers is None or performers[0] != os.getpid():
            performers = self._performers = (os.getpid(), ThreadPoolExecutor(1, "tls-fallback"))
        return performers[1]


def snapshot_of(times: Times) -> HistogramSnapshot:
    """Return the shim's histogram as statistics have it."""
    return HistogramSnapshot(times.bounds, times.counts, sum(times.counts), times.sum)


def _perform(request: SignRequest, key: Key) -> None:
    with contextlib.suppress(EngineError):  # the client has left meanwhile, or it has failed, which the op says
        request.perform(key)
