"""The picture: well-formed, inside its frame, no label on another."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tlsserver.bench.plot import HEIGHT, WIDTH, draw
from tlsserver.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

NS = "{http://www.w3.org/2000/svg}"
SPREAD = [1.5 * 1.01**step for step in range(400)]


def result(handshakes: Sequence[float], answers: Sequence[float] = (), **more: Any) -> dict[str, Any]:
    """Make a result from latencies in milliseconds."""
    first, second = (array("d", [value / 1000 for value in values]) for values in (handshakes, answers))
    tally = Tally(
        len(first), first, second, seconds=2.0, errors=Counter(more.pop("errors", {})), cipher="TLS_X", group="g"
    )
    told = {"target": "h:1", "tls": "1.3", "concurrency": 8, "request": bool(answers), "resume": False}
    return {**told, **tally.as_dict(), **more}


def texts(picture: ET.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{NS}text")]


CASES = {
    "spread": result(SPREAD),
    "answers": result(SPREAD, [value * 2 for value in SPREAD]),
    "one": result([3.5]),
    "tiny": result([0.001]),
    "five decades": result([0.01, 1000]),
    "slow": result([9_000, 10_000]),
    "none": result([]),
    "failed": result([1, 2], errors={"timeout": 3}),
    "markup": result([1], target='<&">:1'),
}


@pytest.fixture(params=CASES)
def picture(request: pytest.FixtureRequest) -> ET.Element:
    return ET.fromstring(draw(CASES[request.param]))  # noqa: S314 - our own


def test_everything_is_inside(picture: ET.Element) -> None:
    for element in picture.iter():
        for name, most in (("x", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("y", HEIGHT), ("y1", HEIGHT), ("y2", HEIGHT)):
            assert 0 <= float(element.get(name, 0)) <= most
        assert float(element.get("height", 0)) >= 0
        assert float(element.get("width", 0)) >= 0


def test_no_two_texts_of_a_place(picture: ET.Element) -> None:
    places = Counter((element.get("x"), element.get("y")) for element in picture.iter(f"{NS}text"))
    assert set(places.values()) == {1}


def test_bars_hold_what_was_measured() -> None:
    groups = list(ET.fromstring(draw(CASES["answers"])).iter(f"{NS}g"))  # noqa: S314 - our own
    used = [[count for *_, count in CASES["answers"][name] if count] for name in ("histogram", "response_histogram")]
    for group, counts in zip(groups, used, strict=True):
        heights = [float(bar.get("height", 0)) for bar in group]
        assert [round(height / max(heights), 2) for height in heights] == pytest.approx(
            [count / max(counts) for count in counts], abs=0.02
        )


def test_what_it_says() -> None:
    found = texts(ET.fromstring(draw(CASES["spread"])))  # noqa: S314 - our own
    assert "Handshake latency, h:1" in found
    assert "200/s" in found
    assert "TLS 1.3, TLS_X, g, 8 at a time, full handshakes" in found
    assert [text.split()[0] for text in found if text.startswith(("p", "max"))] == ["p50", "p90", "p99", "p99.9", "max"]
    assert {"2 ms", "5 ms", "10 ms", "50 ms"} <= set(found)


def test_without_handshakes() -> None:
    assert "no handshake succeeded" in texts(ET.fromstring(draw(CASES["none"])))  # noqa: S314 - our own


def test_failures_are_told() -> None:
    assert "2 in 2.0 s, 3 failed" in texts(ET.fromstring(draw(CASES["failed"])))  # noqa: S314 - our own
