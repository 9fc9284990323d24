"""Wait fds and their owners."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from helpers_reactor import check_descriptors

from tlsserver.reactor import Reactor
from tlsserver.waitfds import WaitFds

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture
def descriptors() -> Iterator[None]:
    yield from check_descriptors()


class Owner:
    """Counts how often it is resumed; may leave when it is."""

    def __init__(self, stage: Stage, *, leaves: bool = False) -> None:
        self.resumed = 0
        self._stage = stage
        self._leaves = leaves

    def resume(self) -> None:
        self.resumed += 1
        if self._leaves:
            self._stage.wait_fds.remove(self._stage.fd, self.resume)


class Stage:
    """One fd that is always readable."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.wait_fds = WaitFds(self.reactor)
        self.fd = os.eventfd(1)

    def close(self) -> None:
        self.reactor.close()
        os.close(self.fd)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def test_each_owner_is_resumed(stage: Stage) -> None:
    owners = [Owner(stage), Owner(stage, leaves=True), Owner(stage)]
    for owner in owners:
        stage.wait_fds.add(stage.fd, owner.resume)
    assert len(stage.wait_fds) == 1
    stage.reactor.run_turn(0)
    stage.reactor.run_turn(0)
    assert [owner.resumed for owner in owners] == [2, 1, 2]


def test_the_last_owner_unregisters(stage: Stage) -> None:
    first, last = Owner(stage), Owner(stage)
    stage.wait_fds.add(stage.fd, first.resume)
    stage.wait_fds.add(stage.fd, last.resume)
    stage.wait_fds.remove(stage.fd, first.resume)
    stage.wait_fds.remove(stage.fd, first.resume)
    stage.reactor.run_turn(0)
    assert (first.resumed, last.resumed) == (0, 1)
    stage.wait_fds.remove(stage.fd, last.resume)
    stage.wait_fds.remove(12345, last.resume)
    stage.reactor.run_turn(0)
    assert (last.resumed, len(stage.wait_fds)) == (1, 0)


def test_an_fd_that_cannot_be_watched_has_no_owner(stage: Stage) -> None:
    owner = Owner(stage)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stage.wait_fds.add(9999, owner.resume)
    assert len(stage.wait_fds) == 0


def test_one_urgent_owner_makes_it_urgent(stage: Stage) -> None:
    stage.wait_fds.add(stage.fd, Owner(stage).resume)
    registration = stage.wait_fds._owners[stage.fd].registration
    assert not registration.urgent
    stage.wait_fds.add(stage.fd, Owner(stage).resume, urgent=True)
    stage.wait_fds.add(stage.fd, Owner(stage).resume)
    registration = stage.wait_fds._owners[stage.fd].registration
    assert registration.urgent


def test_a_new_owner_registers_the_number_anew(stage: Stage) -> None:
    """The engine of the first has closed its fd, and another has the number now: epoll knows nothing of that one."""
    first, second = Owner(stage), Owner(stage)
    stage.wait_fds.add(stage.fd, first.resume, urgent=True)
    os.close(stage.fd)
    assert os.eventfd(1) == stage.fd
    stage.wait_fds.add(stage.fd, second.resume)
    stage.reactor.run_turn(0)
    assert (first.resumed, second.resumed) == (1, 1)
    registration = stage.wait_fds._owners[stage.fd].registration
    assert registration.urgent, "one urgent owner is enough"
    for owner in (first, second):
        stage.wait_fds.remove(stage.fd, owner.resume)
    assert len(stage.wait_fds) == 0


# Descriptors that come again


def test_one_that_comes_again_is_not_registered_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Owner(stage), Owner(stage)
    stage.wait_fds.add(stage.fd, first.resume, serial=5)
    stage.wait_fds.remove(stage.fd, first.resume)
    assert len(stage.wait_fds) == 0
    monkeypatch.setattr(stage.reactor, "add", None)
    stage.wait_fds.add(stage.fd, second.resume, serial=5)
    os.eventfd_write(stage.fd, 1)
    stage.reactor.run_turn(0)
    assert (first.resumed, second.resumed) == (0, 1)


@pytest.mark.parametrize("again", [{"serial": 6}, {"serial": 0}, {"serial": 5, "urgent": True}])
def test_another_of_its_number_is_registered_anew(stage: Stage, again: dict[str, Any]) -> None:
    first, second = Owner(stage), Owner(stage)
    stage.wait_fds.add(stage.fd, first.resume, serial=5)
    stage.wait_fds.remove(stage.fd, first.resume)
    os.close(stage.fd)
    assert os.eventfd(1) == stage.fd
    stage.wait_fds.add(stage.fd, second.resume, **again)
    stage.reactor.run_turn(0)
    assert (first.resumed, second.resumed) == (0, 1)


def test_one_that_is_readable_for_nobody_is_left_alone(stage: Stage) -> None:
    owner = Owner(stage)
    stage.wait_fds.add(stage.fd, owner.resume, serial=5)
    stage.wait_fds.remove(stage.fd, owner.resume)
    os.eventfd_write(stage.fd, 1)
    stage.reactor.run_turn(0)
    assert stage.reactor._backlog == {}
    stage.wait_fds.add(stage.fd, owner.resume, serial=5)
    stage.reactor.run_turn(0)
    assert owner.resumed == 1
