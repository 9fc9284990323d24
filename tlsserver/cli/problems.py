"""All that is wrong with the options of `tlsserver serve`, said at once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine_shim import ShimError
from tlsserver import ContextSettings, Problem, check
from tlsserver.cli import app_options, applications, params
from tlsserver.cli.offload import needs_file
from tlsserver.cli.tls_options import workable_options
from tlsserver.errors import ConfigurationError, ProblemsError, TLSServerError
from tlsserver.site import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tlsserver.cli.applications import Application

__all__ = ["all_at_once", "check_served", "tell_warnings"]


@contextlib.contextmanager
def all_at_once(directory: Path | None, options: dict[str, Any]) -> Iterator[None]:
    """Where the start has failed, say what else is wrong.

    The engine is not asked again: it may count how often a PIN is wrong.
    """
    try:
        yield
    except (TLSServerError, ShimError, OSError) as error:
        found = dict.fromkeys(
            [*_problems(error), *_complaint(lambda: check_served(directory, options)), *_options_problems(options)]
        )
        if options["check_config"]:
            tell_warnings(found)
        raise ProblemsError([problem.message for problem in found if problem.is_error]) from error


def tell_warnings(problems: Iterable[Problem]) -> None:
    """Say on standard error what is wrong, and can be served all the same."""
    for problem in problems:
        if not problem.is_error:
            click.echo(f"tlsserver: warning: {problem.message}", err=True)


def _complaint(action: Callable[[], object]) -> list[Problem]:
    """Return what is wrong, if it is something."""
    try:
        action()
    except (TLSServerError, ShimError, OSError) as error:
        return _problems(error)
    return []


def _problems(error: Exception) -> list[Problem]:
    messages = error.problems if isinstance(error, ProblemsError) else (str(error),)
    return [Problem(True, " ".join(message.split())) for message in messages]


def _options_problems(options: dict[str, Any]) -> Iterator[Problem]:
    """Look at certificate, key and policy, each by itself."""
    certificate, key = options["ssl_certfile"], options["ssl_keyfile"]
    yield from _complaint(lambda: params.password(options["ssl_keyfile_password"]))
    if key is not None and certificate is not None:
        yield from _complaint(
            lambda: needs_file(key, options["offload"]) and params.read(Path(key), "key", "--ssl-keyfile")
        )
    unreadable = _complaint(lambda: certificate and params.read(certificate, "certificate", "--ssl-certfile"))
    yield from unreadable
    is_there = certificate is not None and not unreadable
    host = params.name_of_host(options["host"])
    workable, problems = workable_options(options)
    yield from (Problem(True, problem) for problem in problems)
    settings = ContextSettings(certificate or "", key or str(certificate), **workable)
    yield from check(settings, host=host, with_certificate=is_there, with_key=False)


def check_served(argument: Path | None, options: dict[str, Any]) -> Application | None:
    """See whether there is what the argument of `serve` names.

    Args:
        argument: A directory or an application; None: neither is wanted.
        options: Of `serve`.

    Returns:
        The application, imported; None: it is none.

    Raises:
        ConfigurationError: It cannot be served, or an option does not fit it.
    """
    context = click.get_current_context()
    if argument is None or not applications.is_named(argument):
        app_options.refuse_without_application(context)
        _check_directory(argument)
        return None
    app_options.refuse_with_application(options, context)
    _check_extra()
    wanted = {name: options[name] for name in ("app_dir", "factory", "interface")}
    return applications.find(str(argument), **wanted)


def _check_extra() -> None:
    try:
        import a2wsgi  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"applications need {error.name}, which is not installed: `pip install 'tlsserver[asgi]'`"
        ) from error


def _check_directory(directory: Path | None) -> None:
    if directory is None:
        return
    try:
        files.site(directory)
    except OSError as error:
        raise ConfigurationError(
            f"directory {directory} cannot be served: {error.strerror}; give one that exists, or none for the demo site"
        ) from error
