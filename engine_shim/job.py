"""The pool of jobs of a thread."""

from __future__ import annotations

from engine_shim import linkage
from engine_shim.errors import ShimError
from engine_shim.native import lib

__all__ = ["cleanup_thread", "init_thread"]


def init_thread(max_jobs: int = 0, initial: int = 0) -> None:
    """Bound the calling thread's pool of jobs (ASYNC_init_thread(3)).

    Args:
        max_jobs: The most jobs at one time; 0: no bound.
        initial: How many to make now.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL refuses.
    """
    linkage.attach()
    if lib.thread_jobs_init(max_jobs, initial) != 1:
        message = f"OpenSSL refuses a pool of {max_jobs} jobs, {initial} of them now"
        raise ShimError(message)


def cleanup_thread() -> None:
    """Free the calling thread's pool of jobs (ASYNC_cleanup_thread(3))."""
    linkage.attach()
    lib.thread_jobs_cleanup()
