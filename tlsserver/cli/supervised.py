"""`tlsserver signer` under a supervisor: it ends with its parent, and tells which keys it serves."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.signers.keyserver_keys import KeyRing

__all__ = ["Status", "end_with_input"]


class Status:
    """Where a supervisor hears of the keys: a line of JSON each time that they were read.

    Args:
        fd: Of a pipe or a file; None: nobody listens. It is the supervisor's.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, ring: KeyRing, error: str | None = None) -> None:
        """Say which keys are served now.

        Args:
            ring: They.
            error: Why they are the same as before.
        """
        if self._fd is None:
            return
        line = json.dumps({"keys": [one.ski.hex() for one in ring], "error": error})
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(self._fd, f"{line}\n".encode())


def end_with_input(end: Callable[[], object]) -> None:
    """Call a function when standard input has ended, on a thread of its own: a parent has the other end of the pipe."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        end()

    threading.Thread(target=wait, name="signer-parent", daemon=True).start()
