"""Handshakes of other servers and of ours, side by side: `python tests/benchmarks/peers --help`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (2, 3)]

from benchmarks.peers import choice, install, machine, measure, plot, report  # noqa: E402 - found by the line above
from benchmarks.peers.figures import Figures, Measurement  # noqa: E402 - the same
from benchmarks.peers.running import readable_folder  # noqa: E402 - the same
from benchmarks.peers.servers import ROOT, SERVERS  # noqa: E402 - the same

from support.certificates import KINDS, Certificates  # noqa: E402 - the same
from support.child_server import allow_many_files  # noqa: E402 - the same

DOCUMENT = ROOT / "docs" / "performance.md"
CORES = sorted(os.sched_getaffinity(0))
ANY_CORE = -1
OURS = [
    name for name, server in SERVERS.items() if server.group == "ours" and server.default and server.speaks == "http"
]
QUICK = {"seconds": 0.5, "rounds": 1, "concurrency": "64", "tls": "1.3"}


def is_default(option: str) -> bool:
    """Tell whether the user has not given an option."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.DEFAULT


def names(text: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Split a list of names.

    Raises:
        click.UsageError: One is not known.
    """
    found = tuple(name.strip() for name in text.split(","))
    for name in found:
        if name not in known:
            raise click.UsageError(f"{name!r} is none of {', '.join(known)}: see {option}")
    return found


def counts(text: str) -> tuple[int, ...]:
    """Split a list of numbers of connections.

    Raises:
        click.UsageError: One is none.
    """
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise click.UsageError(f"{text!r} is no list of numbers: write --concurrency 1,64")
    return found


def tell(one: Measurement) -> None:
    """Say what was just measured."""
    cell = f"{one.cell.key} TLS {one.cell.tls} x{one.cell.concurrency}"
    busy = f"server {one.server_busy:4.0%}, client {one.client_busy:4.0%}"
    failed = f", {one.errors} FAILED" if one.errors else ""
    told = f"round {one.round + 1}  {one.server:<16}{one.cost:8.0f} us{one.rate:8.0f}/s  {busy}{failed}"
    click.echo(f"{cell:<24}{told}", err=True)


@click.command(help=(__doc__ or "").partition(":")[0] + ".")
@choice.options(peers=True)
@click.option("--keys", default="rsa2048,rsa4096,p256", show_default=True, help="Kinds of key.")
@click.option("--tls", default="1.3,1.2", show_default=True, help="Versions.")
@click.option("--concurrency", default="1,8,64,512", show_default=True, help="Connections in progress.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.5, show_default=True, help="Of each measurement.")
@click.option("--server-core", type=int, default=CORES[-1], show_default=True, help="Of all servers; -1: any.")
@click.option("--client-core", type=int, default=CORES[0], show_default=True, help="Of the load generator; -1: any.")
@click.option("--quick", is_flag=True, help="One round of half a second, 64 at once, TLS 1.3, unless told otherwise.")
@click.option("--install/--no-install", "installing", default=True, help="Get the servers that are missing.")
@click.option("--output", type=Path, default=ROOT / "build" / "handshakes", help="Name of .json, .md and .svg.")
@click.option("--document", is_flag=True, help="Put tables and plot into docs/performance.md as well.")
def main(only: str | None, tools: Path, *, peers: bool, installing: bool, **options: Any) -> None:
    """Measure and report."""
    if options["quick"]:
        options |= {name: value for name, value in QUICK.items() if is_default(name)}
    if installing and peers and only is None:
        install.everything(tools)
    plan = make_plan(choice.chosen(only, OURS, tools, peers=peers), tools, options)
    versions = {name: SERVERS[name].version(tools) for name in plan.servers}
    click.echo(f"{len(plan.servers)} servers, about {plan.duration() / 60:.1f} minutes", err=True)
    allow_many_files()
    run = measure.Run([], {})
    try:
        with readable_folder() as folder:
            measure.run(plan, Certificates(folder), tell, run)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if run.measurements:
            write(run, plan, versions, options["output"], document=options["document"])


def make_plan(servers: list[str], tools: Path, options: dict[str, Any]) -> measure.Plan:
    """Read the options."""
    server_core, client_core = (core(options[name]) for name in ("server_core", "client_core"))
    return measure.Plan(
        servers=tuple(servers),
        keys=names(options["keys"], KINDS, "--keys"),
        tls=names(options["tls"], ("1.3", "1.2"), "--tls"),
        concurrency=counts(options["concurrency"]),
        rounds=options["rounds"],
        seconds=options["seconds"],
        server_core=server_core,
        client_core=client_core,
        tools=tools,
    )


def core(number: int) -> int | None:
    """Read the number of a core.

    Raises:
        click.UsageError: We may not use it.
    """
    if number == ANY_CORE:
        return None
    if number not in CORES:
        raise click.UsageError(f"core {number} cannot be used: choose from {CORES}, or {ANY_CORE} for any")
    return number


def write(run: measure.Run, plan: measure.Plan, versions: dict[str, str], output: Path, *, document: bool) -> None:
    """Write JSON, tables and plot, and print the tables."""
    about = machine.about()
    lines = [*report.machine(about), "", *report.circumstances(run), "", *report.what_was_seen(run, versions)]
    lines += report.tables(run, plan)
    picture = plot.svg(Figures(run.measurements), plan.keys, plan.tls[0], report.headline(plan))
    output.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(report.as_json(run, plan, versions, about), indent=1)
    for ending, text in ((".json", told), (".md", "\n".join(lines)), (".svg", picture)):
        output.with_suffix(ending).write_text(text, encoding="utf-8")
    if document:
        report.put(DOCUMENT, "handshakes", lines)
        DOCUMENT.with_suffix(".svg").write_text(picture, encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
