"""`tlsserver gen-ticket-keys`."""

from __future__ import annotations

from pathlib import Path

import click

from tlsserver.policy.ticket_files import add_key


@click.command("gen-ticket-keys", context_settings={"show_default": True})
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(0, 63), default=2, help="How many of the keys that are there stay.")
def command(file: Path, *, keep: int) -> None:
    """Put a new key for session tickets first in FILE, which is made if it is not there.

    The first key encrypts, all decrypt. Servers with --ssl-ticket-keys FILE see the change by themselves.
    """
    names = add_key(file, keep)
    click.echo(f"{file}: {names[0].hex()} encrypts from now on; {len(names) - 1} older keys are kept")
