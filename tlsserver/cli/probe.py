"""`tlsserver probe`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tlsserver.bench import find_target
from tlsserver.cli import params
from tlsserver.probe import Client, UnreachableError, make_survey, report

EXIT_UNREACHABLE = 1


@click.command("probe", context_settings={"show_default": True})
@click.argument("target", metavar="HOST:PORT")
@click.option("--server-name", metavar="NAME", help="Asked for (SNI).  [default: HOST, if it is a name]")
@click.option(
    "--ssl-ca-certs", type=click.Path(path_type=Path), help="Verify with these, PEM.  [default: the system's]"
)
@click.option("--timeout", type=params.seconds, default=5.0, help="Seconds for each connection; all of them: 60.")
@click.option("--all", "everything", is_flag=True, help="Every suite of OpenSSL's, in old versions too.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def command(
    context: click.Context,
    /,
    target: str,
    *,
    server_name: str | None,
    ssl_ca_certs: Path | None,
    timeout: float,
    everything: bool,
    as_json: bool,
) -> None:
    """Show what a TLS server negotiates, any server.

    It makes a few dozen connections, one after the other (with --all some hundred), and sends nothing on them but
    handshakes. The exit code is 0 if there was a handshake, whatever came of it, and 1 if there was none.
    """
    found = find_target(target, allow_remote=True)
    name = server_name or params.name_of_host(found.host)
    expected = name or found.host
    client = Client(found, server_name=name, expected=expected, ca_certs=ssl_ca_certs, timeout=timeout)
    try:
        findings = make_survey(client, found.name, server_name=name, expected=expected, everything=everything)
    except UnreachableError as error:
        click.echo(f"tlsserver: error: {target} cannot be probed: {' '.join(str(error).split())}", err=True)
        context.exit(EXIT_UNREACHABLE)
    click.echo(json.dumps(findings.as_dict(), indent=2) if as_json else "\n".join(report.lines(findings)))
