"""The jobs that go on without their connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tlsserver.config import ServerConfig
from tlsserver.drains import Drain, Drains

if TYPE_CHECKING:
    import pytest


def filled(most: int, now: int) -> Drain:
    drain = Drain("slow", most)
    for _ in range(now):
        drain.enter()
    return drain


def test_full_at_its_bound_and_open_again_with_a_tenth_free() -> None:
    drain = filled(20, 19)
    assert not drain.is_full
    drain.enter()
    assert drain.is_full
    drain.leave()
    assert drain.is_full, "one place is not enough: it would open and close with every job"
    drain.leave()
    assert not drain.is_full
    assert drain.now == 18


def test_a_short_list_opens_with_one_place() -> None:
    drain = filled(1, 1)
    assert drain.is_full
    drain.leave()
    assert not drain.is_full


def test_the_log_has_one_line_each_way(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        drain = filled(3, 6)
        for _ in range(6):
            drain.leave()
    full = (
        "3 operations go on although their connections are gone: its new handshakes are refused until some have ended"
    )
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"engine slow: {full}"),
        ("INFO", "engine slow: 2 such operations are left: it takes handshakes again"),
    ]


def test_each_engine_has_its_own_and_names_add_up() -> None:
    drains = Drains(2)
    one, other, off = object(), object(), None
    assert drains.of(one, "same") is drains.of(one, "same")
    for engine in (one, other, other):
        drains.of(engine, "same").enter()
    drains.of(off, "off")
    assert (drains.of(one, "same").is_full, drains.of(other, "same").is_full) == (False, True)
    assert drains.by_name() == {"same": 3, "off": 0}


def test_the_bound_when_none_is_set() -> None:
    bounds = [ServerConfig(async_jobs=jobs).draining_most for jobs in (None, 1, 8)]
    assert bounds == [100, 1, 4]
    assert ServerConfig(async_jobs=8, max_draining=50).draining_most == 50


def test_engines_that_were_closed_are_forgotten() -> None:
    class Engine:
        closed = False

    drains, first, second = Drains(1), Engine(), Engine()
    busy = drains.of(first, "first")
    busy.enter()
    drains.of(second, "second")
    first.closed = second.closed = True
    drains.of(Engine(), "third")
    assert drains.by_name() == {"first": 1, "third": 0}
    busy.leave()
    drains.of(Engine(), "fourth")
    assert drains.by_name() == {"third": 0, "fourth": 0}
