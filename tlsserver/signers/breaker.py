"""The circuit breaker: who has failed again and again is not asked for a while. No clock, no I/O, one thread."""

from __future__ import annotations

__all__ = ["Breaker"]


# Seconds. A call of somebody's library may never return; that is no reason never to ask again.
_LONGEST_TRIAL = 10.0


class Breaker:
    """Closed while all is well; open after some failures in a row; then half-open: one trial decides.

    Args:
        failures: So many in a row open it. Five, because one or two are what any restart costs.
        seconds: How long it stays open before a trial. One second: whoever returns is used again within two.

    Attributes:
        seconds: The same.
    """

    def __init__(self, failures: int = 5, seconds: float = 1.0) -> None:
        self._most = failures
        self.seconds = seconds
        self._failed = 0
        self._open_until: float | None = None
        self._on_trial = False
        self._trial_until = 0.0

    def state(self, now: float) -> str:
        """Return ``"closed"``, ``"open"`` or ``"half-open"``. Any thread."""
        open_until = self._open_until
        if open_until is None:
            return "closed"
        return "open" if now < open_until else "half-open"

    def allows(self, now: float) -> bool:
        """Tell whether a request may go this way: any while it is closed, one at a time while it is half-open."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not (self._on_trial and now < self._trial_until))

    def begin(self, now: float) -> bool:
        """A request that was allowed goes this way; it succeeds, fails or is given up later.

        Returns:
            Whether it is the trial; `given_up` wants to know.
        """
        is_trial = self.state(now) == "half-open"
        if is_trial:
            self._on_trial = True
            self._trial_until = now + _LONGEST_TRIAL
        return is_trial

    def succeeded(self) -> None:
        """A request has its answer: all is well."""
        self._failed = 0
        self._open_until = None
        self._on_trial = False

    def failed(self, now: float) -> None:
        """A request has none."""
        self._failed += 1
        self._on_trial = False
        if self._failed >= self._most:
            self._open_until = now + self.seconds

    def given_up(self, *, is_trial: bool = True) -> None:
        """A request was not wanted any more: it tells nothing.

        Args:
            is_trial: What `begin` has said of it. One from before makes no room for another trial beside that.
        """
        if is_trial:
            self._on_trial = False
