"""What the engines of a server have done: the sums that stand in its `Statistics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlsserver.session import engines_of
from tlsserver.stats import EngineNumbers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlsserver.session import ContextLike
    from tlsserver.stats import SignerNumbers

__all__ = ["EngineSums"]


class EngineSums:
    """The engines of all contexts so far, each once, and the sums of their numbers.

    Of engines that were swapped out and closed only the numbers are kept, from when the next one comes; one that comes
    closed has done nothing for this server since.
    """

    def __init__(self, context: ContextLike | None = None) -> None:
        """Begin with the engines of a context, or with none."""
        # Replaced as a whole: any thread may read it.
        self._known: tuple[tuple[Any, ...], EngineNumbers] = ((), EngineNumbers())
        if context is not None:
            self.add(context)

    def add(self, context: ContextLike) -> None:
        """Count the engines of another context as well."""
        for engine in engines_of(context):
            self._add(engine)

    def _add(self, engine: Any) -> None:  # noqa: ANN401 - it may be anybody's
        engines, gone = self._known
        if not engine.closed and engine not in engines:
            closed = [known for known in engines if known.closed]
            self._known = ((*(known for known in engines if not known.closed), engine), _sums(closed, gone))

    def numbers(self) -> EngineNumbers:
        """Return the sums. Any thread."""
        return _sums(*self._known)

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Return the numbers of those who answer for the engines. Any thread."""
        engines, _ = self._known
        return tuple(one for engine in engines for one in getattr(engine, "signers", tuple)())


def _sums(engines: Iterable[Any], others: EngineNumbers) -> EngineNumbers:
    numbers = [engine.statistics() for engine in engines]
    return EngineNumbers(
        ops_performed=others.ops_performed + sum(one.performed for one in numbers),
        ops_cancelled=others.ops_cancelled + sum(one.cancelled for one in numbers),
        batches=others.batches + sum(one.batches for one in numbers),
        ops_batched=others.ops_batched + sum(one.batched for one in numbers),
        ops_recomputed=others.ops_recomputed + sum(one.recomputed for one in numbers),
        turn_seconds_max=max([others.turn_seconds_max, *(one.turn_max_ns / 1e9 for one in numbers)]),
    )
