"""Where the keys of session tickets come from, and what has them changed: by nobody, or by time.

Facts
- Whoever has a ticket key reads every session that was sealed with it, and in TLS 1.2 what was said in them.
- A ticket is worth as much as the session in it, whose lifetime OpenSSL enforces (SSL_CTX_set_timeout(3)).

What it means
- A key should encrypt for a short time, and must decrypt for a session's lifetime after that.

Decision
- A key encrypts for half of a session's lifetime and is accepted for a whole one after, so there are three at any time;
  with OpenSSL's two hours, a new one each hour. The loops' timers drive it: there is no thread.
- Keys live longer than contexts: `TLSContext.replace` hands them on.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from engine_shim import ShimError, TicketKeys

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LIFETIME", "PERIODS", "SHORTEST_PERIOD", "RotatingKeys", "TicketSource"]

logger = logging.getLogger(__name__)

# Of a session's lifetime: how long a key encrypts, and how many more such times it is accepted.
PERIODS = 2

# Of OpenSSL, until a context says otherwise.
LIFETIME = 7200.0

# Sessions that live for seconds only are not worth a new key each second.
SHORTEST_PERIOD = 60.0


class TicketSource:
    """Keys that stay what they are. Contexts share it; any thread.

    Attributes:
        keys: The ring that handshakes use.
        files: What it is read from, to be looked at for changes.
    """

    files: tuple[str | Path, ...] = ()

    def __init__(self, keys: TicketKeys) -> None:
        self.keys = keys

    def accept_for(self, lifetime: float) -> None:
        """A context uses the keys, whose sessions live so many seconds."""

    def refresh(self) -> None:
        """Read anew what has changed; not on a loop. What cannot be read changes nothing, and is said once."""

    def keep_up(self, now: float) -> float | None:
        """Do what is due by time; on a loop.

        Args:
            now: The time of CLOCK_MONOTONIC.

        Returns:
            When to call again; None: never.
        """


class RotatingKeys(TicketSource):
    """Random keys of this process and of those that it forks, a new one at each half of a session's lifetime."""

    def __init__(self) -> None:
        super().__init__(TicketKeys())
        self._lock = threading.Lock()
        self._period = LIFETIME / PERIODS
        self._due = time.monotonic() + self._period

    def accept_for(self, lifetime: float) -> None:
        """Rotate as the newest context asks for, from the next key on."""
        with self._lock:
            self._period = max(lifetime / PERIODS, SHORTEST_PERIOD)

    def keep_up(self, now: float) -> float:
        """Rotate as often as it is due: forked processes come to the same keys at the same time."""
        with self._lock:
            while self._due <= now:
                self._due += self._period
                try:
                    self.keys.rotate(keep=PERIODS)
                except ShimError as error:
                    logger.error("ticket keys cannot be rotated, those before stay: %s", error)  # noqa: TRY400 - a reason
            return self._due
