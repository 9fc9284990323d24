"""Keys that were taken away, and are served for a while longer.

Facts
- Handshakes have begun with the certificates of the keys before.
- Whoever reads new keys does not know whether the TLS servers will use them. Where a new certificate is not good, they
  go on with what they have, and need the keys before for as long as that lasts.
- A server that asks for a new key has its certificate.

Decision
- The time begins to run when a newer key is asked for; where there is none, at once.
- Each set of keys has a time of its own, so those of two changes ago are not forgotten with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsserver.signers.keyserver_keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Succession"]


@dataclass(eq=False)
class _Leaving:
    """Keys that were taken away.

    Attributes:
        ring: They.
        grace: Seconds for which they are served, once they are not needed.
        newer: Names of the keys that came later: who asks for one has gone on.
        is_told: Whether the time runs.
    """

    ring: KeyRing
    grace: float
    newer: set[bytes] = field(default_factory=set)
    is_told: bool = False


class Succession:
    """The keys that there are, and those that were. Loop thread only.

    Args:
        ring: The keys.
        later: Calls a function after some seconds.
        changed: Called when other keys are to be served; it gets them.

    Attributes:
        ring: The keys that were read last.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        later: Callable[[float, Callable[[], object]], object],
        changed: Callable[[KeyRing], object],
    ) -> None:
        self.ring = ring
        self._later = later
        self._changed = changed
        self._leaving: list[_Leaving] = []

    def replace(self, ring: KeyRing, grace: float) -> None:
        """Serve other keys from now on, and those before for a while.

        Args:
            ring: The keys.
            grace: Seconds, from the first request for a new key; 0: not at all.
        """
        if grace > 0 and _names(self.ring) - _names(ring):
            self._leaving.append(_Leaving(self.ring, grace))
        self.ring = ring
        for one in tuple(self._leaving):
            one.newer |= _names(ring) - _names(one.ring)
            if not one.newer:
                self._begin(one)
        self._tell()

    def asked_for(self, name: bytes) -> None:
        """Take note that a key was asked for.

        Args:
            name: Its subject key identifier.
        """
        for one in self._leaving:
            if name in one.newer:
                self._begin(one)

    def _begin(self, leaving: _Leaving) -> None:
        if not leaving.is_told:
            leaving.is_told = True
            self._later(leaving.grace, lambda: self._end(leaving))

    def _end(self, leaving: _Leaving) -> None:
        self._leaving.remove(leaving)
        self._tell()

    def _tell(self) -> None:
        before = [key for one in self._leaving for key in one.ring]
        self._changed(KeyRing((*before, *self.ring)) if before else self.ring)


def _names(ring: KeyRing) -> set[bytes]:
    return {one.ski for one in ring}
