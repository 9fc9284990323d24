"""Virtual environments that tests make, and what runs in them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def run(command: list[str | Path], **environment: str) -> str:
    """Run a command that has to succeed; gives what it printed.

    Args:
        command: A program and its arguments.
        environment: Variables that are set, or differ from ours.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**variables, **environment})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(folder: Path, *options: str) -> Path:
    """Make a virtual environment.

    Args:
        folder: Where.
        options: Of ``python -m venv``.

    Returns:
        Its Python.
    """
    run([sys.executable, "-m", "venv", *options, folder])
    return folder / "bin" / "python"
