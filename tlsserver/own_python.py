"""Programs of this package in a process of their own."""

from __future__ import annotations

import os
import sys

from tlsserver.errors import ConfigurationError

__all__ = ["own_python"]


def own_python(program: str) -> list[str]:
    """Return the command that runs a program of ours with the code that we run, wherever we have that from.

    Nothing in PYTHON* variables, or in a working directory that is not ours, can get in between (``-I``).

    Args:
        program: Python source; `sys` is imported.

    Raises:
        ConfigurationError: Nobody knows where Python is.
    """
    if not sys.executable:
        raise ConfigurationError("another process cannot be started: sys.executable does not say where Python is")
    # A relative place is one of where we are now; what is not text is no place for Python either.
    places = [os.path.abspath(place) for place in sys.path if isinstance(place, str)]  # noqa: PTH100 - no links
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {places!a}; {program}"]
