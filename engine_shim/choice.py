"""Which engine pays for a key, on this machine with this OpenSSL: what ``--offload auto`` does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine_shim.batches import batch_lanes
from engine_shim.engine import BatchEngine, ThreadEngine

if TYPE_CHECKING:
    from pathlib import Path

    from engine_shim.batches import BatchCosts
    from engine_shim.engine import Engine
    from engine_shim.key import Key

__all__ = ["EngineChoice", "batch_threads", "choose_engine", "choose_for", "measuring_engine"]

# A pause and what follows (docs/performance.md has the figures) costs the loop some 15 us, and a handshake without its
# signature 200 us: below this a thread would cost more than 3 % of the handshake.
_WORTH_A_THREAD = 0.0003

# A batch on the loop's own thread costs least, but holds up everybody else for so long. Above the 2 ms that handshakes
# may hold a turn anyway (tlsserver/reactor.py) it goes to a thread.
_LONGEST_TURN = 0.002

# A batch has to be full to cost least, and each of its ops pauses: eight at once must save at least a fifth.
_WORTH_A_BATCH = 0.8


@dataclass(frozen=True)
class EngineChoice:
    """What pays for a key.

    Attributes:
        offload: ``"batch"``, ``"threads"`` or ``"off"``: by OpenSSL on the loop's thread.
        threads: Of the engine; 0: by turns of the loop; None: as many as there are CPUs.
        reason: Why, in one line.
        signature: What one takes that OpenSSL makes alone, in seconds; 0: it cannot be measured.
    """

    offload: str
    threads: int | None
    reason: str
    signature: float


def choose_engine(
    source: str | Path | bytes, password: str | bytes | None = None, *, cpus: int | None = None
) -> EngineChoice:
    """Measure a private key's signatures, and tell which engine pays for it.

    It takes as long as a few dozen signatures, with RSA-4096 some 30 ms.

    Args:
        source: The key: a file's path, or PEM or DER bytes.
        password: Of the key.
        cpus: So many CPUs may be used; None: all that this process may run on.

    Returns:
        The choice.

    Raises:
        KeyPasswordError: The key is encrypted, and the password is missing or wrong.
        KeyLoadError: There is no key, or it is of a kind that cannot be wrapped; then ``off`` is the only choice.
        LinkageError: OpenSSL cannot be reached.
        OSError: The file cannot be read.
    """
    with measuring_engine() as engine:
        return choose_for(engine.load_key(source, password), cpus or len(os.sched_getaffinity(0)))


def batch_threads(source: str | Path | bytes, password: str | bytes | None = None) -> int:
    """Tell how many threads suit a `BatchEngine` that gets this key: as many as `choose_engine` would give it.

    Args:
        source: As of `choose_engine`, which says what it raises.
        password: Of the key.

    Returns:
        0: the loop's own thread performs. 1: a batch would hold up the loop for too long, or does not pay.
    """
    chosen = choose_engine(source, password)
    return 0 if (chosen.offload, chosen.threads) == ("batch", 0) else 1


def measuring_engine() -> Engine:
    """Make an engine to load keys into that are to be measured: with batches, where there are any."""
    return BatchEngine(threads=0) if batch_lanes() else ThreadEngine(1)


def choose_for(key: Key, cpus: int) -> EngineChoice:
    """Tell which engine pays for a key that is loaded; its batches count where its engine has them."""
    costs = key.batch_costs
    signature = key.measure_signature() if costs is None else costs.one
    name = f"{key.type}-{key.bits}" if key.type.startswith("RSA") else key.type
    signs = f"{name} signs in {_microseconds(signature)}"
    if costs is not None and key.type == "RSA" and costs.eight < 8 * costs.one * _WORTH_A_BATCH:
        return _batch(signs, costs, cpus)
    if signature == 0:
        signs = f"what a signature of this {name} key takes cannot be measured"
    elif signature < _WORTH_A_THREAD:
        return EngineChoice("off", None, f"{signs}, which is less than handing it over is worth", signature)
    if cpus > 1:
        return EngineChoice("threads", None, f"{signs}, and there are {cpus} CPUs", signature)
    return EngineChoice("off", None, f"{signs}, but there is only one CPU", signature)


def _batch(signs: str, costs: BatchCosts, cpus: int) -> EngineChoice:
    reason = f"{signs}, eight together in {_microseconds(costs.eight)}"
    if cpus > 1 and costs.eight > _LONGEST_TURN:
        return EngineChoice("batch", 1, f"{reason}: on a thread of its own", costs.one)
    return EngineChoice("batch", 0, f"{reason}: on the loop's thread", costs.one)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} us"
