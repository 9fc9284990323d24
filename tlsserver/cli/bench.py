"""`tlsserver bench`."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlsserver.bench import Client, Close, Crew, Load, Settings, find_target, plot, report, sources
from tlsserver.bench.answer import make_request
from tlsserver.bench.settings import CIPHERSUITES
from tlsserver.cli import params
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tlsserver.bench import Tally, Target

    Watch = Callable[[Tally], None]

_PATH = click.Path(path_type=Path)
_DEFAULT = Settings()
_DURATION = 10.0  # seconds
# Bounds, so that no load is forgotten: it keeps every latency (16 bytes a connection), and heats the room.
LONGEST = 600.0  # seconds
MOST = 10_000_000  # connections


@click.command("bench", context_settings={"show_default": True})
@click.argument("target", metavar="HOST:PORT")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=_DEFAULT.concurrency, help="At any time.")
@click.option("--duration", type=params.seconds, help="Seconds, at most 600.  [default: 10, or 600 with --count]")
@click.option("--count", type=click.IntRange(1, MOST), help="Connections, exactly.  [default: no bound]")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Generators that share the load.")
@click.option("--tls", type=click.Choice(["1.2", "1.3"]), default=_DEFAULT.tls, help="The one version that is offered.")
@click.option("--resume", is_flag=True, help="All but the first offer the latest session.")
@click.option("--request", is_flag=True, help="GET / after each handshake, and read the answer.")
@click.option("--timeout", type=params.seconds, default=_DEFAULT.timeout, help="Seconds for a handshake.")
@click.option("--close", type=click.Choice([one.value for one in Close]), default=_DEFAULT.close.value, help="How.")
@click.option("--server-name", metavar="NAME", help="Asked for (SNI).  [default: HOST, if it is a name]")
@click.option("--ssl-ca-certs", type=_PATH, help="Verify certificates with these, PEM.  [default: not verified]")
@click.option("--ssl-groups", metavar="LIST", help="Key exchange groups.  [default: X25519; more with TLS 1.2]")
@click.option("--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: OpenSSL's]")
@click.option("--ssl-ciphersuites", metavar="LIST", default=CIPHERSUITES, help="TLS 1.3 suites.")
@click.option("--ssl-alpn", metavar="NAME", multiple=True, help="Protocol that is offered; repeatable.")
@click.option("--allow-remote", is_flag=True, help="The target may be another machine, whose owner agrees.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--plot", "plot_path", type=_PATH, metavar="FILE.svg", help="Draw the latencies.")
@click.pass_context
def command(context: click.Context, /, target: str, *, as_json: bool, plot_path: Path | None, **options: Any) -> None:  # noqa: ANN401 - see the options above
    """Load a TLS server with handshakes, and tell how it took them.

    Ctrl-C ends it early. The exit code is 0 if there were handshakes and none failed, else 1.
    """
    found = find_target(target, allow_remote=options["allow_remote"])
    settings = _settings(found, options)
    with _plot_file(plot_path) as write_plot:
        tally = _run(found, settings, options["processes"])
        result = _result(found, settings, tally)
        write_plot(result)
    click.echo(json.dumps(result) if as_json else "\n".join(report.lines(result)))
    context.exit(0 if tally.is_good else 1)


def _settings(target: Target, options: dict[str, Any]) -> Settings:
    name = options["server_name"] or params.name_of_host(target.host)
    duration: float = options["duration"] or (LONGEST if options["count"] else _DURATION)
    if duration > LONGEST:
        raise ConfigurationError(f"--duration {duration:g} is too long: give at most {LONGEST:g} seconds")
    if options["resume"] and options["close"] == Close.RESET.value:
        raise ConfigurationError("--resume needs what the server says last, its tickets: leave out --close reset")
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


def _run(target: Target, settings: Settings, processes: int) -> Tally:
    client = Client(settings)  # where there are several processes, it tells what cannot work before they start
    with _progress(settings) as watch:
        if processes == 1:
            load: Load | Crew = Load(settings, target, client, sources(target), watch)
        else:
            load = Crew(settings, target, processes, watch)
        with _stopping(load):
            return load.run()


def _result(target: Target, settings: Settings, tally: Tally) -> dict[str, Any]:
    return {
        "target": target.name,
        "tls": settings.tls,
        "concurrency": settings.concurrency,
        "request": settings.request is not None,
        "resume": settings.resume,
        **tally.as_dict(),
    }


@contextlib.contextmanager
def _stopping(load: Load | Crew) -> Iterator[None]:
    """Let Ctrl-C end the load, not the program; a second one ends that too."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        load.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress(settings: Settings) -> Iterator[Watch | None]:
    """Show how far it is, on a terminal; standard output is for the result."""
    if not sys.stderr.isatty():
        yield None
        return
    length = settings.count or int((settings.duration or 0) * 10)
    start = time.monotonic()
    with click.progressbar(length=length, file=sys.stderr, show_eta=False, item_show_func=_in_short) as bar:

        def watch(tally: Tally) -> None:
            errors = sum(tally.errors.values())
            position = tally.done + errors if settings.count else int((time.monotonic() - start) * 10)
            bar.update(min(position, length) - bar.pos, tally)

        yield watch


def _in_short(tally: Tally | None) -> str:
    if tally is None:
        return ""
    errors = sum(tally.errors.values())
    return f"{tally.rate:,.0f} handshakes/s" + (f", {errors:,} failed" if errors else "")


@contextlib.contextmanager
def _plot_file(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open the file before the load: nobody wants to learn after ten minutes that it cannot be written."""
    if path is None:
        yield lambda _: None
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield lambda result: print(plot.draw(result), end="", file=file)
    except OSError as error:
        raise ConfigurationError(
            f"plot {path} cannot be written: {error.strerror}; give another path with --plot"
        ) from error
