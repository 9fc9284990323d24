"""Which servers a run compares: the options that the benchmarks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from benchmarks.peers.servers import ROOT, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")

TOOLS = ROOT / "build" / "peers"


def options(*, peers: bool = False) -> Callable[[Decorated], Decorated]:
    """Add `--only`, `--peers` and `--tools`.

    Args:
        peers: Whether other servers run unless told otherwise.
    """

    def add(function: Decorated) -> Decorated:
        for option in (
            click.option("--tools", type=Path, default=TOOLS, help="Virtual environment of the servers from PyPI."),
            click.option("--peers/--no-peers", default=peers, show_default=True, help="Other servers as well."),
            click.option("--only", metavar="NAME,...", help=f"These servers: {', '.join(SERVERS)}."),
        ):
            function = option(function)
        return function

    return add


def chosen(only: str | None, ours: Iterable[str], tools: Path, *, peers: bool, extra: Iterable[str] = ()) -> list[str]:
    """The names to run, in order.

    Args:
        only: What `--only` said.
        ours: Those of ours that run unless `only` says otherwise.
        tools: Environment of the servers from PyPI.
        peers: What `--peers` said.
        extra: Names that are no servers of their own.

    Returns:
        Those that are there; what is missing is told on stderr.

    Raises:
        click.UsageError: There is no such server.
    """
    if only is not None:
        names = [name.strip() for name in only.split(",")]
    else:
        names = [*ours, *(name for name, server in SERVERS.items() if peers and server.group != "ours")]
    unknown = [name for name in names if name not in SERVERS and name not in extra]
    if unknown:
        raise click.UsageError(f"no server is called {unknown[0]!r}: choose from {', '.join([*SERVERS, *extra])}")
    missing = [name for name in names if name in SERVERS and SERVERS[name].program(tools) is None]
    if missing:
        click.echo(f"left out, because they are not here: {', '.join(missing)}", err=True)
    return [name for name in names if name not in missing]
