"""Programs of this package in a process of their own."""

from __future__ import annotations

import sys

__all__ = ["own_python"]


def own_python(program: str) -> list[str]:
    """Return the command that runs a program of ours with the code that we run, wherever we have that from.

    Nothing in the working directory or in PYTHON* variables can get in between (``-I``).

    Args:
        program: Python source; `sys` is imported.
    """
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"]
