"""A server in a process of its own: what is the same for all of them, on both sides.

The process runs with `support.memory.TUNABLES`, answers each line of its standard input with one, and ends with it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from support import apart
from support.memory import TUNABLES

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


class ChildServer:
    """The server, seen from the clients' process; a context manager.

    Args:
        module: The tests' module whose ``serve`` it runs; the first thing that it says is its port.
        arguments: Of ``serve``.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, module: str, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            apart.command(module, "serve", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=apart.environment(**TUNABLES),
        )
        self.address = ("127.0.0.1", self._answer())

    def ask(self, question: object) -> Any:
        """Say something, and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server has ended: {self._process.wait()}"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            assert self._process.wait(30) == 0


def allow_many_files() -> None:
    """Raise our limit on open files, which whoever we start inherits, as far as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def say(value: object) -> None:
    """Be the server: answer."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
