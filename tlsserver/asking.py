"""How an application is asked about a handshake: by a plain function, on a thread's own stack.

No Python frame ever stands on a job's stack, which is small: that is checked here, where Python is called. Coroutines
are refused, when a context is made and when one comes back: on a loop without asyncio nobody would run them, and the
handshake would wait for its deadline.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

import engine_shim
from tlsserver.errors import ConfigurationError, LocalTLSError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ask", "complaint", "refuse_job_stack"]

_Request = TypeVar("_Request")


def complaint(asked: object, name: str, request: str, answers: str) -> str | None:
    """Return why a setting cannot be asked; None: it can.

    Args:
        asked: Its value.
        name: What the setting is called.
        request: What the function is called with.
        answers: How it answers later.
    """
    if not callable(asked):
        return f"{name} is {asked!r}: give a function that takes a {request}"
    if inspect.iscoroutinefunction(asked) or inspect.iscoroutinefunction(type(asked).__call__):
        return (
            f"{name} is a coroutine function, which nobody would run: give a function that starts a task, and "
            f"call {answers} there"
        )
    return None


def ask(asked: Callable[[_Request], object], request: _Request) -> None:
    """Call the application.

    Raises:
        ConfigurationError: It has returned a coroutine.
        LocalTLSError: This is a job's stack.
        Exception: What the application raises.
    """
    refuse_job_stack()
    result = asked(request)
    if inspect.iscoroutine(result):
        result.close()
        message = "it returned a coroutine, which nobody would run: start a task there instead"
        raise ConfigurationError(message)


def refuse_job_stack() -> None:
    """Make sure that this is a thread's own stack.

    Raises:
        LocalTLSError: It is a job's, which is small and has no place for Python: a bug of ours.
    """
    if engine_shim.job_is_current():
        message = "a question came up on a job's stack"
        raise LocalTLSError(message)
