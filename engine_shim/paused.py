"""What holds a paused job, kept until the job has ended.

Freeing the owner of a paused job would leak the job, and only the thread that started it can end it: so Python's
garbage collector must not be able to.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from engine_shim.errors import ShimError

__all__ = ["Owner", "drain_paused", "keep", "let_go"]


class Owner(Protocol):
    """What owns a job: an AsyncSSL or a Job."""

    def close(self) -> bool:
        """Cancel and resume the job; False: it still runs."""


_paused: set[Owner] = set()


def keep(owner: Owner) -> None:
    """Its job is paused."""
    _paused.add(owner)


def let_go(owner: Owner) -> None:
    """Its job has ended."""
    _paused.discard(owner)


def drain_paused() -> None:
    """At exit: end every paused job of this thread, before OpenSSL's own clean-up; those of others stay as they are."""
    for owner in tuple(_paused):
        with suppress(ShimError):
            owner.close()
