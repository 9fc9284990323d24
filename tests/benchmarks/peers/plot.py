"""The plot: bars of CPU time for a handshake, one panel for each kind of key, as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from benchmarks.peers.figures import Cell, Figures
from benchmarks.peers.report import key_name
from benchmarks.peers.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LABELS, BARS, NUMBERS = 110, 190, 60  # widths in pixels: name, longest bar, number behind it
PANEL = LABELS + BARS + NUMBERS
LINE, BAR, TOP = 22, 15, 64  # heights: a line, a bar, what is above the first line
COLOURS = {"ours": "#0b6e4f", "debian": "#5b6b7b", "pypi": "#a0a8b0"}


def svg(figures: Figures, keys: Sequence[str], tls: str, concurrency: int) -> str:
    """Draw.

    Args:
        figures: What was measured.
        keys: Kinds of key: panels from left to right.
        tls: Version.
        concurrency: Connections at once.
    """
    names = figures.servers()
    width, height = PANEL * len(keys), TOP + LINE * len(names) + 12
    title = f"Server CPU time for a full handshake, TLS {tls}, {concurrency} at once, microseconds"
    box = f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="13"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, key in enumerate(keys):
        lines += [f'<g transform="translate({number * PANEL},0)">']
        lines += _panel(figures, Cell(key, tls, concurrency), names)
        lines += ["</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(figures: Figures, cell: Cell, names: list[str]) -> Iterator[str]:
    yield f'<text x="{LABELS}" y="{TOP - 12}" font-weight="bold">{escape(key_name(cell.key))}</text>'
    costs = {name: found.median for name in names if (found := figures.of(cell, name, lambda one: one.cost))}
    longest = max(costs.values(), default=1.0)
    for line, name in enumerate(names):
        if name in costs:
            yield from _bar(TOP + line * LINE, name, costs[name], BARS * costs[name] / longest)


def _bar(y: int, name: str, cost: float, length: float) -> Iterator[str]:
    colour = COLOURS[SERVERS[name].group]
    yield f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
    yield f'<text x="{LABELS + length + 6:.1f}" y="{y + 12}">{cost:.0f}</text>'
