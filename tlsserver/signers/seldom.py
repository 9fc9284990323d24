"""Lines of the log that would come too often."""

from __future__ import annotations

import threading
import time

__all__ = ["Seldom"]

_QUIET = 60.0  # seconds: who fails does so again and again, and the log needs it once


class Seldom:
    """Says each kind of thing once a minute. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}  # by kind: quiet until then; and how often it was

    def more(self, kind: str) -> str | None:
        """Ask whether something may be said.

        Args:
            kind: Of few: they are all remembered.

        Returns:
            What to put behind it: how often it was not said; empty, if never. None: be quiet.
        """
        now = time.monotonic()
        with self._lock:
            quiet_until, count = self._told.get(kind, (now, 0))
            if now < quiet_until:
                self._told[kind] = (quiet_until, count + 1)
                return None
            self._told[kind] = (now + _QUIET, 0)
        return f" (and {count} times more since that was said last)" if count else ""
