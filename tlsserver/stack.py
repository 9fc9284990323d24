"""The rule that no Python frame ever stands on a job's stack, checked where applications are asked."""

from __future__ import annotations

import engine_shim
from tlsserver.errors import LocalTLSError

__all__ = ["refuse_job_stack"]


def refuse_job_stack() -> None:
    """Make sure that this is a thread's own stack, before a function of the application is called.

    Raises:
        LocalTLSError: It is a job's, which is small and has no place for Python: a bug of ours.
    """
    if engine_shim.job_is_current():
        message = "a question came up on a job's stack"
        raise LocalTLSError(message)
