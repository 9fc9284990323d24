"""A server of the table, started in a folder of its own."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.processes import Process, free_port
from benchmarks.peers.servers import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.servers import Server

    from support.certificates import Identity


@contextlib.contextmanager
def readable_folder() -> Iterator[Path]:
    """A temporary folder that the processes of other users may look into, as those of some servers are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@contextlib.contextmanager
def running(server: Server, identity: Identity, tools: Path, core: int | None = None) -> Iterator[Process]:
    """Start a server, and end it.

    Args:
        server: A row of the table.
        identity: Its certificate and key.
        tools: Environment of the servers from PyPI.
        core: The only core that it may use; None: any.
    """
    with readable_folder() as folder:
        place = Place(folder, free_port(), identity, tools)
        command = server.command(place)
        with Process(command, place.port, folder, core, server.environment) as process:
            yield process
