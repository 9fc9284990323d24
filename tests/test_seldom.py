"""What is logged once a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tlsserver.signers.seldom import Seldom

if TYPE_CHECKING:
    import pytest


def test_each_kind_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    quiet = Seldom()
    assert quiet.more("one") == ""
    assert quiet.more("other") == ""
    assert [quiet.more("one") for _ in range(3)] == [None] * 3
    now += 59.9
    assert quiet.more("one") is None
    now += 0.2
    assert quiet.more("one") == " (and 4 times more since that was said last)"
    assert quiet.more("one") is None
    now += 60.0
    assert quiet.more("other") == ""
