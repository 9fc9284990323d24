"""Functions that run in a process of their own, because an ENGINE serves the whole process that it is in."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TESTS = ROOT / "tests"

# Like pytest's filterwarnings; and a process that stands still says where.
_PYTHON = (sys.executable, "-W", "error", "-X", "faulthandler")


def command(module: str, name: str, *arguments: str | Path) -> list[str]:
    """Make the command line that calls a function of one of the tests' modules with strings as arguments."""
    code = f"import sys, {module}; sys.exit({module}.{name}(*sys.argv[1:]))"
    return [*_PYTHON, "-c", code, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Give the variables of such a process."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]), **more}


def run(function: Callable[..., None], *arguments: str | Path, variables: dict[str, str] | None = None) -> str:
    """Call a module's function in a new process; it has to return.

    Args:
        function: Of a module below ``tests/``.
        arguments: Strings, or what becomes one.
        variables: Of the environment.

    Returns:
        What it printed.
    """
    done = subprocess.run(
        command(function.__module__, function.__qualname__, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,  # before pytest's own
        env=environment(**(variables or {})),
    )
    assert done.returncode == 0, f"{function.__qualname__}{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
