"""Whoever takes requests: what the engine's descriptors tell, and how long taking waits."""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import EngineClosedError, SignerEngine
from support import apart
from support.asking import asked, ended, is_readable, make_pair, private_key, sign, taken
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

LONG = 600.0


pytestmark = pytest.mark.usefixtures("no_ops_left")


@pytest.fixture
def engine() -> Iterator[SignerEngine]:
    with SignerEngine(deadline=LONG) as engine:
        yield engine


def test_descriptor_is_readable_while_there_is_something_to_take(
    engine: SignerEngine, certificates: Certificates
) -> None:
    identity = certificates["p256"]
    pairs = [make_pair(engine, identity) for _ in range(2)]
    assert not is_readable(engine)
    for pair in pairs:
        pair.until_parked()
        assert is_readable(engine)
    taken(engine)
    assert is_readable(engine)
    taken(engine)
    assert not is_readable(engine)
    assert engine.take() is None
    for pair in pairs:
        pair.close()
    pair = make_pair(engine, identity)
    pair.until_parked()
    pair.close()  # it leaves before it is taken
    assert not is_readable(engine)
    assert engine.take() is None
    engine.close()
    assert is_readable(engine)
    with pytest.raises(EngineClosedError):
        engine.take()


def test_taking_waits_no_longer_than_told(engine: SignerEngine) -> None:
    before = time.monotonic()
    assert engine.take(timeout=0.02) is None
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(engine.take(timeout=0.02)))
    thread.start()
    thread.join(10)
    assert found == [None]
    assert time.monotonic() - before >= 0.04


@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize("timeout", [-0.5, float("nan"), float("inf")])
def test_time_that_is_over_or_never_comes(
    engine: SignerEngine, certificates: Certificates, timeout: float, is_main: bool
) -> None:
    """A time left, as a caller computes it, may be less than nothing: that is no wait for ever."""
    found: list[object] = []

    def take() -> None:
        found.append(engine.take(timeout=timeout))

    with make_pair(engine, certificates["p256"]) as pair:
        if timeout > 0:
            pair.until_parked()
        if is_main:
            take()
        else:
            thread = threading.Thread(target=take)
            thread.start()
            thread.join(10)
    assert [one is not None for one in found] == [timeout > 0]


def fork_without_room() -> None:
    """A fork has no room for the child's own descriptors."""
    engine = SignerEngine()
    fd = engine.ended_fileno()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for fileno in (engine.fileno, engine.ended_fileno):
                with pytest.raises(OSError, match="no descriptor is to be had"):
                    fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            code = 0 if not readable([engine.fileno(), engine.ended_fileno()]) else 2
            engine.close()
            code = code if len(readable([engine.fileno(), engine.ended_fileno()])) == 2 else 3
        finally:
            os._exit(code)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not readable([fd])
    engine.close()


def test_descriptor_is_to_be_had_later() -> None:
    apart.run(fork_without_room)  # libuv, which other tests load, aborts a child that has no room


def test_ended_requests_are_told_once(engine: SignerEngine, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with make_pair(engine, identity) as pair:
        asked(engine, pair)
    fd = engine.ended_fileno()
    assert engine.take_ended() == ()  # nobody had asked to be told
    with make_pair(engine, identity) as pair:
        left = asked(engine, pair).id
        assert not readable([fd])
    assert readable([fd])
    with make_pair(engine, identity) as pair:
        request = asked(engine, pair)
        request.complete(sign(request, private_key(identity)))
        ended(pair)
    assert engine.take_ended() == (left,)
    assert engine.take_ended() == ()
    assert not readable([fd])
    engine.close()
    assert readable([fd])
    with pytest.raises(EngineClosedError):
        engine.take_ended()


def test_expired_requests_have_ended(certificates: Certificates) -> None:
    with SignerEngine(deadline=0.02) as engine, make_pair(engine, certificates["p256"]) as pair:
        fd = engine.ended_fileno()
        request = asked(engine, pair)
        assert readable([fd], PATIENCE)
        assert engine.take_ended() == (request.id,)
        assert not request.is_open


def test_more_ended_than_are_remembered(engine: SignerEngine, certificates: Certificates) -> None:
    engine.ended_fileno()
    key = engine.load_key(certificates["p256"].cert)
    for _ in range(257):
        with engine_shim.Job(key.sign, b"message") as job:
            job.start()
            taken(engine)
    assert engine.take_ended() is None
    assert engine.take_ended() == ()


def test_child_is_told_of_its_own(engine: SignerEngine, certificates: Certificates) -> None:
    with make_pair(engine, certificates["p256"]) as pair:
        asked(engine, pair)
        fd = engine.ended_fileno()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if engine.take_ended() == () and not readable([engine.ended_fileno()]) else 2
                engine.close()
                code = code if readable([engine.ended_fileno()]) else 3
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not readable([fd])
