"""Attributes that are computed once, without a lock."""

from __future__ import annotations

import threading

from engine_shim.cached import cached_property


class Thing:
    """Counts how often its value is computed."""

    def __init__(self) -> None:
        self.count = 0
        self.go = threading.Event()
        self.go.set()

    @cached_property
    def value(self) -> int:
        """The value."""
        self.go.wait(30)
        self.count += 1
        return self.count


def test_computed_once_for_each_object() -> None:
    one, other = Thing(), Thing()
    assert (one.value, one.value, one.count, other.count) == (1, 1, 1, 0)
    assert other.value == 1


def test_object_does_not_wait_for_another_one() -> None:
    slow, quick = Thing(), Thing()
    slow.go.clear()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert quick.value == 1
    slow.go.set()
    thread.join()


def test_documentation_is_the_functions() -> None:
    assert Thing.value.__doc__ == "The value."
