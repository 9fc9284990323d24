"""For how long keys are served that were taken away: the time is a list of what was to be called later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_shim import BatchEngine
from tlsserver.signers.keyserver_grace import Succession
from tlsserver.signers.keyserver_keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_shim import Engine
    from support.certificates import Certificates

OLD, NEW, NEWEST, OTHER = "p256", "p384", "p521", "rsa2048"
GRACE = 60.0


@pytest.fixture
def engine() -> Iterator[Engine]:
    with BatchEngine(0) as made:
        yield made


class Keys:
    """A succession, and what it does to the world."""

    def __init__(self, certificates: Certificates, engine: Engine, *kinds: str) -> None:
        self._certificates = certificates
        self._engine = engine
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self._served = self.ring(*kinds)
        self.succession = Succession(
            self._served, later=lambda seconds, call: self.timers.append((seconds, call)), changed=self._serve
        )

    def ring(self, *kinds: str) -> KeyRing:
        return KeyRing.load([self._certificates[kind].key for kind in kinds], None, self._engine)

    def _serve(self, ring: KeyRing) -> None:
        self._served = ring

    def replace(self, *kinds: str, grace: float = GRACE) -> None:
        self.succession.replace(self.ring(*kinds), grace)

    def ask(self, kind: str) -> None:
        (key,) = self.ring(kind)
        self.succession.asked_for(key.ski)

    def expire(self) -> None:
        """Let the first timer's moment come."""
        seconds, call = self.timers.pop(0)
        assert seconds == GRACE
        call()

    @property
    def served(self) -> set[str]:
        return {kind for kind in (OLD, NEW, NEWEST, OTHER) for one in self._served if one.ski == self._ski(kind)}

    def _ski(self, kind: str) -> bytes:
        (key,) = self.ring(kind)
        return key.ski


def test_time_runs_from_the_first_request_for_a_new_key(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD, OTHER)
    keys.replace(NEW, OTHER)
    assert {one.ski for one in keys.succession.ring} == {one.ski for one in keys.ring(NEW, OTHER)}
    keys.ask(OLD)
    keys.ask(OTHER)
    assert keys.timers == []
    assert keys.served == {OLD, NEW, OTHER}
    keys.ask(NEW)
    keys.ask(NEW)
    assert keys.served == {OLD, NEW, OTHER}
    keys.expire()
    assert keys.timers == []
    assert keys.served == {NEW, OTHER}


def test_without_a_grace_they_go_at_once(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD)
    keys.replace(NEW, grace=0.0)
    assert keys.served == {NEW}
    assert keys.timers == []


def test_key_that_nothing_takes_the_place_of(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD, OTHER)
    keys.replace(OTHER)
    assert keys.served == {OLD, OTHER}
    keys.expire()
    assert keys.served == {OTHER}


def test_next_change_does_not_end_the_time_of_those_before(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD)
    keys.replace(NEW)
    keys.ask(NEW)
    keys.replace(NEWEST)
    assert keys.served == {OLD, NEW, NEWEST}
    keys.expire()
    assert keys.served == {NEW, NEWEST}
    keys.ask(NEWEST)
    keys.expire()
    assert keys.served == {NEWEST}


def test_changes_that_no_server_takes(certificates: Certificates, engine: Engine) -> None:
    """Each new key's certificate is refused, until the last."""
    keys = Keys(certificates, engine, OLD)
    keys.replace(NEW)
    keys.replace(OTHER)
    keys.ask(OLD)
    assert keys.served == {OLD, NEW, OTHER}
    keys.ask(OTHER)
    keys.expire()
    keys.expire()
    assert keys.served == {OTHER}


def test_change_that_is_taken_back(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD)
    keys.replace(NEW)
    keys.replace(OLD)
    keys.ask(OLD)
    keys.expire()
    assert keys.timers == []
    assert keys.served == {OLD}


def test_same_keys_again(certificates: Certificates, engine: Engine) -> None:
    keys = Keys(certificates, engine, OLD)
    keys.replace(OLD)
    assert keys.timers == []
    assert keys.served == {OLD}
