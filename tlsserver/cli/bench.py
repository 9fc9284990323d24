"""`tlsserver bench`."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlsserver.bench import Client, Close, Load, Settings, find_target, sources
from tlsserver.bench.answer import make_request
from tlsserver.bench.settings import CIPHERSUITES
from tlsserver.cli import params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.bench import Tally, Target

_PATH = click.Path(path_type=Path)
_DEFAULT = Settings()
LONGEST = 600.0  # seconds
MOST = 10_000_000  # connections


@click.command("bench", context_settings={"show_default": True})
@click.argument("target", metavar="HOST:PORT")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=_DEFAULT.concurrency, help="At any time.")
@click.option("--duration", type=params.seconds, help="Seconds.  [default: 10; with --count no bound but 600]")
@click.option("--count", type=click.IntRange(1, MOST), help="Connections, exactly.  [default: no bound]")
@click.option("--tls", type=click.Choice(["1.2", "1.3"]), default=_DEFAULT.tls, help="The one version that is offered.")
@click.option("--resume", is_flag=True, help="All but the first offer the latest session.")
@click.option("--request", is_flag=True, help="GET / after each handshake, and read the answer.")
@click.option("--timeout", type=params.seconds, default=_DEFAULT.timeout, help="Seconds for a handshake.")
@click.option("--close", "close", type=click.Choice([one.value for one in Close]), default=_DEFAULT.close.value)
@click.option("--server-name", metavar="NAME", help="Asked for (SNI).  [default: HOST, if it is a name]")
@click.option("--ssl-ca-certs", type=_PATH, help="Verify certificates with these, PEM.  [default: not verified]")
@click.option("--ssl-groups", metavar="LIST", help="Key exchange groups.  [default: X25519]")
@click.option("--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.")
@click.option("--ssl-ciphersuites", metavar="LIST", default=CIPHERSUITES, help="TLS 1.3 suites.")
@click.option("--ssl-alpn", metavar="NAME", multiple=True, help="Protocol that is offered; repeatable.")
@click.option("--allow-remote", is_flag=True, help="The target may be another machine, whose owner agrees.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def command(context: click.Context, target: str, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - see above
    """Load a TLS server with handshakes, and tell how it took them.

    The exit code is 0 if there were handshakes and none failed, else 1.
    """
    found = find_target(target, allow_remote=options["allow_remote"])
    settings = _settings(found, options)
    tally = _run(found, settings)
    result = {
        "target": found.name,
        "tls": settings.tls,
        "concurrency": settings.concurrency,
        "request": settings.request is not None,
        **tally.as_dict(),
    }
    click.echo(json.dumps(result, indent=2))
    context.exit(0 if tally.is_good else 1)


def _settings(target: Target, options: dict[str, Any]) -> Settings:
    name = options["server_name"] or params.name_of_host(target.host)
    duration = options["duration"] or (LONGEST if options["count"] else _DEFAULT.duration)
    return Settings(
        duration=duration,
        request=make_request(target.name) if options["request"] else None,
        close=Close(options["close"]),
        server_name=name,
        expected_name=name or target.host,
        ca_certs=options["ssl_ca_certs"],
        groups=options["ssl_groups"],
        ciphers=options["ssl_ciphers"],
        ciphersuites=options["ssl_ciphersuites"],
        alpn=options["ssl_alpn"],
        **{key: options[key] for key in ("tls", "concurrency", "count", "resume", "timeout")},
    )


def _run(target: Target, settings: Settings) -> Tally:
    load = Load(settings, target, Client(settings), sources(target))
    with _stopping(load):
        return load.run()


@contextlib.contextmanager
def _stopping(load: Load) -> Iterator[None]:
    """Let Ctrl-C end the load, not the program."""
    before = signal.signal(signal.SIGINT, lambda *_: load.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
