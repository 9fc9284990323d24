"""Batches: whether this build and this CPU have them, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from engine_shim.native import ffi, lib

__all__ = ["LANES", "BatchCosts", "batch_lanes", "describe_batches"]

LANES = 8


@dataclass(frozen=True)
class BatchCosts:
    """What a signature costs here, measured when the first key of its kind was loaded.

    Attributes:
        one: By OpenSSL, alone, in seconds.
        eight: A batch, in seconds, however many are in it.
        pays_from: So many signatures cost less in a batch than one by one; None: not even eight do.
    """

    one: float
    eight: float
    pays_from: int | None


def batch_lanes() -> int:
    """Return how many ops one batch can hold: 8, or 0 where this build or this CPU has no batches."""
    return LANES if lib.batch_is_usable() else 0


def describe_batches() -> str:
    """Tell what computes the batches, or why nothing does, in one line."""
    return str(ffi.string(lib.batch_description()).decode())


def costs_of(key: object) -> BatchCosts | None:
    """Return what a key's signatures cost.

    Args:
        key: A ``struct key *`` of cffi's.

    Returns:
        None: OpenSSL performs this key alone, or it is in another engine.
    """
    out = ffi.new("struct batch_costs *")
    if not lib.key_batch_costs(key, out):
        return None
    pays_from = int(out.pays_from) if out.pays_from <= LANES else None
    return BatchCosts(out.one_ns / 1e9, out.eight_ns / 1e9, pays_from)
