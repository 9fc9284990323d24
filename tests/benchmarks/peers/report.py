"""Tables in Markdown, and everything as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.peers.figures import Cell, Figure, Figures, figure, interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benchmarks.peers.measure import Plan, Run

REFERENCES = ("nginx", "off")  # whose ratios are told; the first is a server in C, the second ours without any engine
HEADLINE = 64  # connections at once of the short table and the plot
KEY_NAMES = {"rsa2048": "RSA-2048", "rsa4096": "RSA-4096", "p256": "P-256"}


def row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def heading(first: str, *numbers: str) -> Iterator[str]:
    """The first two lines of a table whose columns but the first are numbers."""
    yield row([first, *numbers])
    yield row(["---", *("---:" for _ in numbers)])


def key_name(kind: str) -> str:
    """How a kind of key is written."""
    return KEY_NAMES.get(kind, kind)


def spread(found: Figure | None) -> str:
    """A median with its smallest and largest."""
    return "" if found is None else f"{found.median:.0f} ({found.least:.0f}-{found.most:.0f})"


def told_ratio(ratios: list[float]) -> str:
    """The median of some ratios, with their smallest and largest."""
    if not ratios:
        return ""
    middle, least, most = figure(ratios)
    return f"**{middle:.2f}** ({least:.2f}-{most:.2f})"


def headline(plan: Plan) -> int:
    """Concurrency of the short tables and the plot."""
    return HEADLINE if HEADLINE in plan.concurrency else plan.concurrency[-1]


def machine(about: dict[str, str]) -> Iterator[str]:
    """The machine, as a list."""
    return (f"- {name}: {value}" for name, value in about.items())


def circumstances(run: Run) -> Iterator[str]:
    """What a reader has to know before believing the numbers."""
    others = figure(one.others for one in run.measurements)
    yield f"Busy with other work meanwhile: {others.median:.2f} cores ({others.least:.2f}-{others.most:.2f})."
    for one in run.measurements:
        if one.errors:
            cell = f"{key_name(one.cell.key)}, TLS {one.cell.tls}, {one.cell.concurrency} at once"
            yield f"\n{one.server}: {one.errors} connections failed beside {one.handshakes} handshakes ({cell})."


def tables(run: Run, plan: Plan) -> Iterator[str]:
    """All tables, as lines."""
    figures = Figures(run.measurements)
    for tls in plan.tls:
        for key in plan.keys:
            cell = Cell(key, tls, headline(plan))
            yield from ("", f"### {key_name(key)}, TLS {tls}, {cell.concurrency} at once", "")
            yield from short(figures, cell)
            if len(plan.concurrency) > 1:
                yield from ("", "Microseconds of server CPU for a handshake / handshakes per second:", "")
                yield from by_concurrency(figures, key, tls, plan.concurrency)


def short(figures: Figures, cell: Cell) -> Iterator[str]:
    """One cell: cost, ratios, and who was busy."""
    references = [name for name in REFERENCES if name in figures.servers()]
    ratios = [f"to {name}" for name in references]
    yield from heading("server", "us of CPU a handshake", *ratios, "handshakes/s", "server busy", "client busy")
    for name in figures.servers():
        cost = spread(figures.of(cell, name, lambda one: one.cost))
        compared = [told_ratio(figures.ratios(cell, name, reference)) for reference in references]
        rate = spread(figures.of(cell, name, lambda one: one.rate))
        busy = [percent(figures.of(cell, name, value)) for value in (lambda o: o.server_busy, lambda o: o.client_busy)]
        yield row([name, cost, *compared, rate, *busy])


def percent(found: Figure | None) -> str:
    """A part, by its median."""
    return "" if found is None else f"{found.median:.0%}"


def by_concurrency(figures: Figures, key: str, tls: str, concurrency: Iterable[int]) -> Iterator[str]:
    """One key and version: each server at each concurrency."""
    cells = [Cell(key, tls, number) for number in concurrency]
    yield from heading("server", *(f"{cell.concurrency} at once" for cell in cells))
    for name in figures.servers():
        yield row([name, *(_both(figures, cell, name) for cell in cells)])


def _both(figures: Figures, cell: Cell, name: str) -> str:
    cost, rate = figures.of(cell, name, lambda one: one.cost), figures.of(cell, name, lambda one: one.rate)
    return f"{cost.median:.0f} / {rate.median:.0f}" if cost and rate else ""


def what_was_seen(run: Run, versions: dict[str, str]) -> Iterator[str]:
    """Each server's version, library, and what it really does."""
    yield row(["server", "version, TLS library", "tickets in TLS 1.3, 1.2"])
    yield row(["---"] * 3)
    for name, version in versions.items():
        tickets = [_tickets(run, name, tls) for tls in ("1.3", "1.2")]
        yield row([name, version, ", ".join(tickets)])


def _tickets(run: Run, name: str, tls: str) -> str:
    found = {str(seen.tickets) for (server, _, version), seen in run.seen.items() if (server, version) == (name, tls)}
    return " or ".join(sorted(found)) or "-"


def as_json(run: Run, plan: Plan, versions: dict[str, str], about: dict[str, str]) -> dict[str, Any]:
    """Everything, for programs: each measurement, and the ratios with their 95 % intervals."""
    figures = Figures(run.measurements)
    measurements = [{**asdict(one), "cell": one.cell._asdict(), "cost_us": one.cost} for one in run.measurements]
    ratios = [
        {**cell._asdict(), "server": name, "to": reference, "ratios": found, "interval": interval(found)}
        for cell in figures.cells()
        for name in figures.servers()
        for reference in REFERENCES
        if (found := figures.ratios(cell, name, reference))
    ]
    seen = [{"server": name, "key": key, "tls": tls, **asdict(one)} for (name, key, tls), one in run.seen.items()]
    return {
        "machine": about,
        "versions": versions,
        "plan": {**asdict(plan), "tools": None},
        "seen": seen,
        "ratios": ratios,
        "rounds": measurements,
    }


def put(path: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands between two marks of a Markdown file: ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    Raises:
        ValueError: The marks are not there.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = path.read_text(encoding="utf-8")
    block = "\n".join([begin, "", *lines, "", end])
    changed, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} has no place for {name}: write {begin} and {end} where it is to be")
    path.write_text(changed, encoding="utf-8")
