"""The options of `tlsserver serve MODULE:ATTRIBUTE`: uvicorn's names and defaults. To add one, add a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tlsserver.cli import params
from tlsserver.cli.applications import INTERFACES
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app_options", "refuse_with_application", "refuse_without_application"]

_COUNT = click.IntRange(min=1)

LOOPS = ("auto", "asyncio", "uvloop")
HTTP = ("auto", "h11", "httptools")
WEBSOCKETS = ("auto", "none", "websockets", "websockets-sansio", "wsproto")

_OPTIONS = (
    click.option("--app-dir", default="", metavar="FOLDER", help="Where MODULE is looked for.  [default: here]"),
    click.option("--factory", is_flag=True, help="MODULE:ATTRIBUTE is called, without arguments, for the application."),
    click.option(
        "--interface", type=click.Choice(("auto", *INTERFACES)), default="auto", help="What the application speaks."
    ),
    click.option("--uds", type=params.PATH, metavar="PATH", help="Listen on a Unix socket instead of a port."),
    click.option("--fd", type=click.IntRange(min=0), help="Listen on this descriptor, a socket that was inherited."),
    click.option("--workers", type=_COUNT, default=1, help="Processes: one, so far."),
    click.option("--limit-concurrency", type=_COUNT, help="Connections or requests at which 503 is answered."),
    click.option("--limit-max-requests", type=_COUNT, help="Requests after which the server ends."),
    click.option(
        "--proxy-headers/--no-proxy-headers",
        default=True,
        help="Believe the X-Forwarded-* headers of those whom --forwarded-allow-ips names.",
    ),
    click.option(
        "--forwarded-allow-ips", metavar="LIST", help="Addresses of proxies; *: anybody.  [default: 127.0.0.1,::1]"
    ),
    click.option("--root-path", default="", metavar="PATH", help="Where a proxy has put the application."),
    click.option(
        "--lifespan",
        type=click.Choice(("auto", "on", "off")),
        default="auto",
        help="Whether the application is told of start and end.",
    ),
    click.option("--access-log/--no-access-log", default=True, help="Log each request."),
    click.option("--loop", type=click.Choice(LOOPS), default="auto", help="auto: uvloop where it is installed."),
    click.option("--http", type=click.Choice(HTTP), default="auto", help="uvicorn's parser; auto: httptools."),
    click.option("--ws", type=click.Choice(WEBSOCKETS), default="auto", help="uvicorn's websockets."),
    click.option("--reload", is_flag=True, help="Not there: for development, let another tool start the server anew."),
)

NAMES = [
    *("app_dir", "factory", "interface", "uds", "fd", "workers", "limit_concurrency", "limit_max_requests"),
    *("proxy_headers", "forwarded_allow_ips", "root_path", "lifespan", "access_log", "loop", "http", "ws", "reload"),
]
"""What the options are called in Python; a test compares it with the table."""


def app_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, in the order of the table."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def refuse_without_application(context: click.Context) -> None:
    """See that no option was given that is for applications alone: somebody believes that it does something.

    Raises:
        ConfigurationError: One was.
    """
    given = [name for name in NAMES if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        raise ConfigurationError(
            f"--{given[0].replace('_', '-')} is for applications, and none is named: give MODULE:ATTRIBUTE, or leave "
            "it out"
        )


def refuse_with_application(options: dict[str, Any], context: click.Context) -> None:
    """Refuse what cannot be done, or contradicts itself.

    Raises:
        ConfigurationError: It was asked for.
    """
    if options["workers"] > 1:
        raise ConfigurationError(
            f"--workers {options['workers']} cannot be served: there is one process so far; start more servers, behind "
            "a balancer"
        )
    if options["reload"]:
        raise ConfigurationError(
            "--reload is not there: install watchfiles, and start `watchfiles 'tlsserver serve MODULE:ATTRIBUTE'`"
        )
    if options["max_draining"] is not None:
        raise ConfigurationError("--max-draining cannot be changed with an application: leave it out")
    chosen = [name for name in ("uds", "fd") if options[name] is not None]
    given = [name for name in ("host", "port") if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if len(chosen) > 1 or (chosen and given):
        one, other = [*chosen, *given][:2]
        raise ConfigurationError(f"--{one} and --{other} cannot both be listened on: give one of them")
