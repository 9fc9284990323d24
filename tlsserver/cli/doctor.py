"""`tlsserver doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tlsserver.cli import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.cli.checks import Findings

_FEW_FILES = 4096  # a parked connection takes two descriptors


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Tell whether handshakes can be offloaded on this machine, and why (not).

    The exit code is 0 if they can, else 1.
    """
    findings = checks.look()
    if as_json:
        click.echo(json.dumps(findings.as_dict(), indent=2))
    else:
        for label, text in _lines(findings):
            click.echo(f"{label:<10}  {text}")
    context.exit(0 if findings.is_good else 1)


def _lines(found: Findings) -> Iterator[tuple[str, str]]:
    yield "tlsserver", f"{found.tlsserver}, on Python {found.python}"
    yield "platform", found.platform
    yield "packages", ", ".join(f"{name} {version}" for name, version in found.packages.items())
    yield "OpenSSL", found.openssl or "none that can be used"
    for linkage in found.linkages:
        yield "linkage", f"{linkage['linkage']}: {linkage['verdict']}, {linkage['reason']}"
        if linkage["advice"]:
            yield "", f"-> {linkage['advice']}"
    if found.async_capable:
        yield "jobs", f"pause and resume; stacks {'with' if found.guarded_stacks else 'without'} a guard page"
        yield "keys", ", ".join(found.keys)
        yield "batches", found.batches
        yield from (("", _signature(name, numbers)) for name, numbers in found.signatures.items())
        yield "ENGINEs", found.engines
        yield "providers", found.providers
    yield from (("note", note) for note in found.notes)
    yield "machine", f"{found.cpus} CPUs, {found.selector}"
    yield "limits", _limits(found)
    yield "verdict", "handshakes are offloaded" if found.is_good else "handshakes CANNOT be offloaded here"


def _signature(name: str, numbers: dict[str, Any]) -> str:
    """Return what a kind of key costs here, as a row of a table."""
    one, eight, pays_from = numbers["one"], numbers["eight"], numbers["pays_from"]
    batch = "" if eight is None else f"eight at once {eight:,.0f} us, cheaper {_from(pays_from)}"
    return f"{name:<9} signs in {one:>6,.0f} us  {batch:<41}  auto: {numbers['auto']}"


def _from(pays_from: int | None) -> str:
    return "never" if pays_from is None else f"from {pays_from} on"


def _limits(found: Findings) -> str:
    soft, hard = found.open_files
    files = f"{_limit(soft)} open files (at most {_limit(hard)})"
    if 0 <= soft < _FEW_FILES:
        files += f", few for a server: `ulimit -n {_FEW_FILES}` raises it"
    maps = found.max_map_count
    if maps is None or not found.guarded_stacks:  # other stacks come from the heap
        return files
    return f"{files}; {maps:,} memory maps, for {maps // 2:,} parked handshakes at most"


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else f"{value:,}"
