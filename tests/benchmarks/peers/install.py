"""Getting the other servers: Debian's by apt-get, PyPI's into a virtual environment of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from benchmarks.peers.servers import which

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN = ("nginx", "haproxy", "h2o")  # packages, and the programs in them
PYPI = ("uvicorn[standard]", "hypercorn[uvloop]", "granian", "twisted[tls]")

# A package's script asks it before it starts a service, 101: no (invoke-rc.d(8), "policy-rc.d").
POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICE = "#!/bin/sh\nexit 101\n"


def everything(tools: Path) -> None:
    """Install what is missing, and say so.

    Args:
        tools: Where the virtual environment is, or is to be.

    Raises:
        click.ClickException: It did not work.
    """
    debian([name for name in DEBIAN if which(name) is None])
    pypi(tools)


def debian(missing: list[str]) -> None:
    """Install these packages; no service of theirs is started, not even for a moment."""
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise click.ClickException(
            f"{', '.join(missing)} are not installed: run `sudo {' '.join(command)}`, or use --only"
        )
    click.echo(f"installing {', '.join(missing)} with apt-get; no service is started", err=True)
    with _no_services():
        _run(["apt-get", "update", "--quiet"])
        _run(command)


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Have invoke-rc.d start nothing. A policy that is there already is the machine's: it is left, and must say no."""
    try:
        with POLICY.open("x", encoding="ascii") as file:
            file.write(NO_SERVICE)
    except FileExistsError:
        if subprocess.run([POLICY], check=False).returncode != 101:
            raise click.ClickException(f"{POLICY} would let services start: install the packages yourself") from None
        yield
        return
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink()


def pypi(tools: Path) -> None:
    """Make the virtual environment, unless it is there."""
    if (tools / "bin" / "granian").exists() and (tools / "bin" / "twist").exists():
        return
    click.echo(f"installing {', '.join(PYPI)} from PyPI into {tools}", err=True)
    _run([sys.executable, "-m", "venv", str(tools)])
    _run([str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *PYPI])


def _run(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, check=False, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise click.ClickException(f"`{' '.join(command)}` failed; use --only to do without")
