"""The audit log of a key server: one line of JSON for each request, written before its answer leaves.

Facts
- Whoever keeps keys apart wants to know afterwards who had what signed, above all when something went wrong.
- A write for each request would cost as much as a signature with P-256.

Decision
- Lines are collected and written together, before the answers of that turn are sent. While they cannot be written no
  signature leaves: the answer is an internal error, and clients go elsewhere.

Trade-off
- A full disk stops the key server. Without ``--audit-log`` nothing is written, and nothing stops.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
from datetime import datetime, timezone
from pathlib import Path

from tlsserver.errors import ConfigurationError

__all__ = ["AuditLog"]

logger = logging.getLogger(__name__)

_KEPT = 10_000  # lines that could not be written; older ones are dropped
_MODE = 0o640

# The folder is mostly that of the user that the key server becomes, and root opens the first file: a link there is
# that user's word for what root should write to. And nothing may wait for whoever reads a pipe.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AuditLog:
    """Where lines go.

    Args:
        place: A file, which is appended to, ``-`` for standard output; None: nowhere.

    Raises:
        ConfigurationError: It cannot be written.
    """

    def __init__(self, place: str | None = None) -> None:
        self._path = None if place in (None, "-") else Path(str(place))
        self._fd: int | None = _standard_output() if place == "-" else None
        self._lines: list[str] = []
        self._is_failing = False
        self.reopen()

    @property
    def is_on(self) -> bool:
        """Whether anything is written."""
        return self._fd is not None

    def reopen(self) -> None:
        """Open the file anew: it may have been moved away.

        Raises:
            ConfigurationError: It cannot be written; the one before stays.
        """
        if self._path is None:
            return
        try:
            fd = os.open(self._path, _FLAGS, _MODE)
        except OSError as error:
            raise ConfigurationError(
                f"audit log {self._path} cannot be written: {_why(error)}; give another path with --audit-log"
            ) from error
        self.close()
        self._fd = fd

    def give_to(self, user: int) -> None:
        """Let a user open the file anew, which is what the process is about to become.

        Only a file that is ours and has no second name: another one's stays as it is.

        Raises:
            OSError: It is not allowed.
        """
        if self._fd is None or self._path is None:
            return
        found = os.fstat(self._fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
            os.fchown(self._fd, user, -1)

    def add(self, *, client: str, operation: str, key: bytes, outcome: str, seconds: float) -> None:
        """Note a request; never what was signed, and never the signature.

        Args:
            client: Who asked.
            operation: The opcode's name.
            key: Its subject key identifier, as the request had it.
            outcome: ``"ok"``, or why not.
            seconds: From the request's last byte to its answer.
        """
        if self._fd is None:
            return
        entry = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "client": client,
            "operation": operation,
            "key": key.hex(),
            "outcome": outcome,
            "microseconds": round(seconds * 1e6),
        }
        self._lines.append(json.dumps(entry) + "\n")

    def flush(self) -> bool:
        """Write what was noted. Returns False while it cannot be written."""
        if not self._lines:
            return True
        try:
            self._write()
        except OSError as error:
            del self._lines[:-_KEPT]
            if not self._is_failing:
                logger.error("the audit log cannot be written, so nothing is signed: %s", error.strerror)  # noqa: TRY400 - the machine's
            self._is_failing = True
            return False
        if self._is_failing:
            self._is_failing = False
            logger.warning("the audit log can be written again")
        return True

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        data = "".join(lines).encode()
        try:
            while data and self._fd is not None:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self._lines = data.decode(errors="replace").splitlines(keepends=True)
            raise

    def close(self) -> None:
        """Close the file; standard output stays."""
        if self._fd is not None and self._path is not None:
            os.close(self._fd)
            self._fd = None


def _standard_output() -> int:
    if sys.stdout is None:  # somebody has closed it, and another file may have its number by now
        raise ConfigurationError("audit log - cannot be written: there is no standard output; give a path")
    return sys.stdout.fileno()


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, and none is followed"
    if error.errno == errno.ENXIO:
        return "nobody reads this pipe"
    return str(error.strerror)
