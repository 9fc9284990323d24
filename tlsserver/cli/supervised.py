"""`tlsserver signer` under a supervisor: it ends with its parent, and tells which keys it serves."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsserver.signers.keyserver_keys import KeyRing

__all__ = ["Status", "end_with_input", "remove_with_input"]


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


def end_with_input() -> None:
    """Take the end of standard input for SIGTERM: a parent has the other end of the pipe.

    A thread of its own waits for it, from the start on: a key may be on a disk that does not answer. SIGTERM ends the
    process in good order, also before anybody else heeds it. Main thread only.
    """
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit())
    main = threading.get_ident()

    def wait() -> None:
        with contextlib.suppress(OSError):
            while sys.stdin is not None and os.read(sys.stdin.fileno(), 4096):
                pass
        # To this thread: what it waits for is to be interrupted.
        signal.pthread_kill(main, signal.SIGTERM)

    threading.Thread(target=wait, name="signer-parent", daemon=True).start()


def remove_with_input(folder: str) -> None:
    """Remove a folder at the process's end, if standard input has ended: it was the parent's, and nobody else can."""

    def remove() -> None:
        waiting = select.poll()
        waiting.register(0, 0)
        if any(event & select.POLLHUP for _, event in waiting.poll(0)):
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
