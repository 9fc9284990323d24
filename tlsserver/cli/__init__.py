"""The command line: `tlsserver serve`, `signer`, `doctor`, `gen-cert`, `bench`, `probe`.

A command is one file and one line of `COMMANDS`. Whatever goes wrong by the user's side is one line on standard error
and exit code 2: commands raise, and `run` says it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from engine_shim import ShimError
from tlsserver.cli import bench, doctor, gen_cert, gen_ticket_keys, probe, serve, signer
from tlsserver.cli.version import version
from tlsserver.errors import ProblemsError, TLSServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "serve": serve.command,
    "signer": signer.command,
    "doctor": doctor.command,
    "gen-cert": gen_cert.command,
    "bench": bench.command,
    "gen-ticket-keys": gen_ticket_keys.command,
    "probe": probe.command,
}

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # what a shell makes of SIGINT


@click.group(commands=COMMANDS, invoke_without_command=True)
@click.version_option(version(), prog_name="tlsserver")
@click.pass_context
def cli(context: click.Context) -> None:
    """A TLS server in which no handshake ever blocks the loop."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    try:
        result = cli.main(arguments, prog_name="tlsserver", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tlsserver"
        return _complain(f"{error.format_message().rstrip('.')}; see `{command} --help`")
    except click.ClickException as error:
        return _complain(error.format_message())
    except ProblemsError as error:
        return max(map(_complain, error.problems))
    except (TLSServerError, ShimError, OSError) as error:
        return _complain(str(error))
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run the command that the process was started with, and exit."""
    sys.exit(run())


def _complain(message: str) -> int:
    click.echo(f"tlsserver: error: {' '.join(message.split())}", err=True)
    return EXIT_USAGE
