"""What `tlsserver serve MODULE:ATTRIBUTE` names: found, imported and looked at, before anything is served."""

from __future__ import annotations

import importlib
import inspect
import logging
import operator
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["INTERFACES", "Application", "find", "is_named"]

logger = logging.getLogger(__name__)

# By name, in words.
INTERFACES = {"asgi3": "ASGI 3", "asgi2": "ASGI 2", "wsgi": "WSGI"}

# What an application is called with, by the number of its arguments: (scope), (environ, start_response), (scope,
# receive, send).
_BY_ARGUMENTS = {1: "asgi2", 2: "wsgi", 3: "asgi3"}


@dataclass(frozen=True)
class Application:
    """An application, imported.

    Attributes:
        name: ``MODULE:ATTRIBUTE``.
        target: What that is.
        factory: Whether it has to be called for the application.
        interface: A key of `INTERFACES`, or ``"auto"``.
    """

    name: str
    target: Any
    factory: bool
    interface: str

    def make(self) -> tuple[Any, str]:
        """Return the application and its interface; calls the factory.

        Raises:
            ConfigurationError: It is no application, or nobody can tell of which interface.
        """
        made = _called(self.name, self.target) if self.factory else self.target
        if not callable(made):
            what = "the factory's result" if self.factory else "it"
            message = f"{self.name} cannot be served: {what} is of type {type(made).__name__}, and cannot be called"
            raise ConfigurationError(message)
        return made, self.interface if self.interface != "auto" else _interface(self.name, made)


def is_named(argument: Path | None) -> bool:
    """Tell whether the argument of `serve` names an application: it has a colon, and is nothing in the file system."""
    return argument is not None and ":" in str(argument) and not argument.exists()


def find(name: str, *, app_dir: str, factory: bool, interface: str) -> Application:
    """Import what is named; a factory is not called yet.

    Args:
        name: ``MODULE:ATTRIBUTE``, with dots in both.
        app_dir: Where modules are looked for first.
        factory: Whether it has to be called for the application.
        interface: A key of `INTERFACES`, or ``"auto"``.

    Raises:
        ConfigurationError: It cannot be found, or its module cannot be imported.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise ConfigurationError(
            f"{name!r} is neither a folder nor an application: write MODULE:ATTRIBUTE, as main:app"
        )
    folder = os.path.abspath(app_dir or os.curdir)  # noqa: PTH100 - sys.path has strings, without links resolved
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    target = _imported(name, module_name, folder)
    found = Application(name, _looked_up(name, target, path), factory, interface)
    if not factory:
        found.make()
    return found


def _looked_up(name: str, module: Any, path: str) -> Any:  # noqa: ANN401 - an application
    """Return what the path names; a module's ``__getattr__`` may run code, which may fail in any way."""
    try:
        return operator.attrgetter(path)(module)
    except AttributeError:
        raise ConfigurationError(
            f"application {name!r} cannot be found: {module.__name__} has no {path!r}; give MODULE:ATTRIBUTE"
        ) from None
    except (Exception, SystemExit) as error:
        raise _failure(name, f"{path!r} cannot be looked up", error) from error


def _imported(name: str, module_name: str, folder: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise _failure(name, "its module cannot be imported", error) from error
        raise ConfigurationError(
            f"application {name!r} cannot be found: there is no module {missing!r} in {folder}; give its folder with "
            "--app-dir"
        ) from None
    except (Exception, SystemExit) as error:
        raise _failure(name, "its module cannot be imported", error) from error


def _called(name: str, factory: Callable[[], Any]) -> Any:  # noqa: ANN401 - an application
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise _failure(name, "the factory has failed", error) from error
    if inspect.iscoroutine(made):
        made.close()  # nobody awaits it
        raise ConfigurationError(f"{name} cannot be served: the factory is a coroutine function: give a plain one")
    return made


def _failure(name: str, what: str, error: BaseException) -> ConfigurationError:
    """Say in one line where the application's own code has failed; the stack is for --log-level debug."""
    logger.debug("%s: %s", name, what, exc_info=error)
    place = ""
    # A syntax error says itself where it is; its stack ends within Python's import.
    own = [] if isinstance(error, SyntaxError) else traceback.extract_tb(error.__traceback__)[-1:]
    for last in own:
        place = f" ({Path(last.filename).name}, line {last.lineno})"
    told = f"{type(error).__name__}: {error}".rstrip(": ")
    return ConfigurationError(f"{name} cannot be served: {what}: {told}{place}; --log-level debug shows more")


def _interface(name: str, app: Any) -> str:  # noqa: ANN401 - an application
    """Tell the interface by how the application can be called."""
    if not inspect.isclass(app) and any(map(inspect.iscoroutinefunction, (app, getattr(app, "__call__", None)))):  # noqa: B004 - its kind is asked for
        return "asgi3"
    found = _BY_ARGUMENTS.get(_arguments(app))
    if found is not None:
        return found
    if _arguments(app) == 0:
        raise ConfigurationError(f"{name} takes no arguments, so it is no application: if it makes one, give --factory")
    raise ConfigurationError(f"nobody can tell of which interface {name} is: give --interface asgi3, asgi2 or wsgi")


def _arguments(app: Any) -> int:  # noqa: ANN401 - an application
    """Count what has to be given by position; -1: nobody can tell."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return -1
    by_position = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(by_position) != len([one for one in parameters if one.kind is not one.VAR_KEYWORD]):
        return -1
    return len([one for one in by_position if one.default is one.empty])
