"""The latencies of a result as a picture: SVG 1.1, no script, no font of its own.

Built with the standard library's ElementTree, so it is well-formed whatever the texts hold. A charting library would be
a dependency of tens of megabytes, or one whose log axis and markers have to be placed by hand all the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tlsserver.bench import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    Buckets = list[tuple[float, float, int]]

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 76, 36, 208, 72
INK, FAINT, GRID = "#1f2733", "#66717f", "#e4e8ed"
SERIES = {"histogram": ("handshake", "#2f6fdb"), "response_histogram": ("answer", "#e0852f")}
MARKERS = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
ROW = 17  # between the labels of markers
LABEL = 112  # of a marker: as much is left free behind the largest time
NARROWEST = 10.0  # a decade at least, so that there are times to read off
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


class Scale:
    """Where a time or a share is in the picture.

    Args:
        low: Smallest time, in milliseconds.
        high: Largest.
        top: Largest share.
    """

    def __init__(self, low: float, high: float, top: float) -> None:
        self._low, self._high = math.log10(low), math.log10(high)
        self.low, self.high, self.top = low, high, top

    def x(self, milliseconds: float) -> float:
        """Tell where a time is, on a logarithmic scale."""
        part = (math.log10(max(milliseconds, 1e-6)) - self._low) / (self._high - self._low)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT - LABEL), 1)

    def y(self, share: float) -> float:
        """Tell where a share is."""
        return round(HEIGHT - BOTTOM - share / self.top * (HEIGHT - TOP - BOTTOM), 1)


def draw(result: dict[str, Any]) -> str:
    """Draw a result.

    Args:
        result: As `--json` prints it.

    Returns:
        The SVG document.
    """
    picture = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
    picture.attrib.update({"width": str(WIDTH), "height": str(HEIGHT), "font-family": FONT})
    SubElement(picture, "title").text = f"Handshake latency of {result['target']}"
    _rect(picture, 0, 0, WIDTH, HEIGHT, fill="#ffffff")
    _heading(picture, result)
    series = {name: result[name] for name in SERIES if result[name]}
    if series:
        scale = _scale(series)
        _grid(picture, scale)
        for name, buckets in series.items():
            _bars(picture, scale, buckets, SERIES[name][1])
        _markers(picture, scale, result["latency_ms"])
        _legend(picture, list(series))
    else:
        _text(picture, WIDTH / 2, HEIGHT / 2, "no handshake succeeded", size=18, anchor="middle", fill=FAINT)
    indent(picture)
    return tostring(picture, encoding="unicode") + "\n"


def _heading(picture: Element, result: dict[str, Any]) -> None:
    kind = f"{result['resumed']:,} resumed" if result["resume"] else "full handshakes"
    errors = sum(result["errors"].values())
    _text(picture, LEFT, 44, f"Handshake latency, {result['target']}", size=22, weight="600")
    _text(picture, LEFT, 70, f"{report.about(result)}, {result['concurrency']:,} at a time, {kind}", fill=FAINT)
    edge = WIDTH - RIGHT
    _text(picture, edge, 44, f"{result['handshakes_per_second']:,.0f}/s", size=22, weight="600", anchor="end")
    counted = f"{result['handshakes']:,} in {result['seconds']:.1f} s, {errors:,} failed"
    _text(picture, edge, 70, counted, anchor="end", fill="#b3261e" if errors else FAINT)


def _scale(series: dict[str, Buckets]) -> Scale:
    low = min(buckets[0][0] for buckets in series.values())
    high = max(buckets[-1][1] for buckets in series.values())
    tallest = max(share for buckets in series.values() for _, _, share in _shares(buckets))
    margin = max(1.1, math.sqrt(NARROWEST / (high / low)))
    return Scale(low / margin, high * margin, tallest * 1.05)


def _shares(buckets: Buckets) -> Iterator[tuple[float, float, float]]:
    total = sum(count for _, _, count in buckets)
    return ((start, end, count / total) for start, end, count in buckets)


def _grid(picture: Element, scale: Scale) -> None:
    for share in _steps(scale.top):
        _line(picture, (LEFT, scale.y(share)), (WIDTH - RIGHT, scale.y(share)), GRID)
        _text(picture, LEFT - 10, scale.y(share) + 4, f"{share * 100:g} %", size=12, anchor="end", fill=FAINT)
    for tick in _ticks(scale.low, scale.high):
        _line(picture, (scale.x(tick), scale.y(0)), (scale.x(tick), scale.y(0) + 5), FAINT)
        _text(picture, scale.x(tick), scale.y(0) + 21, _time(tick), size=12, anchor="middle", fill=FAINT)
    _line(picture, (LEFT, scale.y(0)), (WIDTH - RIGHT, scale.y(0)), FAINT)
    _text(picture, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, "time from connect", size=12, anchor="middle", fill=FAINT)


def _steps(top: float) -> list[float]:
    """Choose about five round shares up to the largest."""
    rough = top / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(step * number, 10) for number in range(int(top / step) + 1)]


def _ticks(low: float, high: float) -> list[float]:
    """Choose 1, 2, 5 of each decade; only 1 where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 4 else (1,)  # noqa: PLR2004 - decades that fit with all three
    ticks = [round(factor * 10.0**decade, 9) for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds / 1000:g} s"
    return f"{milliseconds:g} ms" if milliseconds >= 1 else f"{milliseconds * 1000:g} µs"


def _precisely(milliseconds: float) -> str:
    digits = 2 - min(max(math.floor(math.log10(max(milliseconds, 1e-3))), 0), 2)
    return f"{milliseconds:,.{digits}f} ms"


def _bars(picture: Element, scale: Scale, buckets: Buckets, colour: str) -> None:
    group = SubElement(picture, "g", {"fill": colour, "fill-opacity": "0.72"})
    for start, end, share in _shares(buckets):
        if share:
            left, top = scale.x(start) + 0.5, scale.y(share)
            _rect(group, left, top, max(scale.x(end) - 0.5 - left, 1), scale.y(0) - top, rx="1.5")


def _markers(picture: Element, scale: Scale, latency: dict[str, float]) -> None:
    """Mark percentiles of the handshake. Labels go down like stairs, so that no line runs through one."""
    for row, (name, label) in enumerate(MARKERS.items()):
        x, y = scale.x(latency[name]), TOP - ROW * (len(MARKERS) - row) - 6
        _line(picture, (x, y - 10), (x, scale.y(0)), INK, dashes="2 3")
        _text(picture, x + 6, y, f"{label} {_precisely(latency[name])}", size=12)


def _legend(picture: Element, names: list[str]) -> None:
    if len(names) == 1:
        return
    for number, name in enumerate(names):
        label, colour = SERIES[name]
        left = LEFT + number * 110
        _rect(picture, left, 88, 12, 12, fill=colour, rx="2")
        _text(picture, left + 18, 99, label, size=13)


def _rect(parent: Element, x: float, y: float, width: float, height: float, **more: str) -> None:
    sizes = {"x": x, "y": y, "width": width, "height": height}
    SubElement(parent, "rect", {**{name: f"{value:g}" for name, value in sizes.items()}, **more})


def _line(parent: Element, start: tuple[float, float], end: tuple[float, float], colour: str, dashes: str = "") -> None:
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    line = SubElement(parent, "line", {name: f"{value:g}" for name, value in ends.items()}, stroke=colour)
    if dashes:
        line.set("stroke-dasharray", dashes)


def _text(
    parent: Element,
    x: float,
    y: float,
    text: str,
    *,
    size: int = 14,
    weight: str = "400",
    anchor: str = "start",
    fill: str = INK,
) -> None:
    look = {"font-size": str(size), "font-weight": weight, "text-anchor": anchor, "fill": fill}
    SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", **look}).text = text
