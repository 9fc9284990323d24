"""A signer named on the command line: `module:factory`."""

from __future__ import annotations

import importlib
import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_shim import ShimError
from tlsserver.errors import ConfigurationError, TLSServerError
from tlsserver.signers.base import Signer
from tlsserver.signers.callable import CallableSigner

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_factory", "make_signer"]


def load_factory(name: str) -> Callable[..., Any]:
    """Find what a name stands for; its module is also looked for in the current directory.

    Args:
        name: ``module:factory``: a module as ``import`` has it, and what is in it, dotted where it is deeper.

    Returns:
        The factory; nothing was called yet.

    Raises:
        ConfigurationError: The name is of another form, the module cannot be imported, there is no such thing in it,
            or it cannot be called.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        message = f"signer {name!r} is not of the form module:factory, such as mykeys:make_signer"
        raise ConfigurationError(message)
    module = _import(module_name, name)
    try:
        found: Any = attrgetter(path)(module)
    except AttributeError:
        message = f"signer {name}: there is no {path} in module {module_name}: give the name of its factory"
        raise ConfigurationError(message) from None
    except Exception as error:  # of the module's own __getattr__
        message = f"signer {name}: {path} cannot be had of module {module_name}: {_told(error)}"
        raise ConfigurationError(message) from error
    if not callable(found):
        message = f"signer {name}: {path} is a {type(found).__name__}, it must be a function that makes a signer"
        raise ConfigurationError(message)
    factory: Callable[..., Any] = found
    return factory


def make_signer(name: str, certificate: str | Path) -> Signer:
    """Make the signer that a name stands for.

    Args:
        name: See `load_factory`. The factory takes the certificate's path (str) and returns a `Signer`, or a function
            for a `CallableSigner` with its own settings.
        certificate: Path of the certificate whose key the signer has.

    Returns:
        The signer, to be closed by the caller.

    Raises:
        ConfigurationError: See `load_factory`; or the factory fails, or returns something else.
    """
    factory = load_factory(name)
    try:
        made = factory(str(certificate))
    except (TLSServerError, ShimError) as error:
        message = f"signer {name}: {error}"
        raise ConfigurationError(message) from error
    except (Exception, SystemExit) as error:
        message = f"signer {name} cannot be made: the factory raised {_told(error)}"
        raise ConfigurationError(message) from error
    if isinstance(made, Signer):
        return made
    if not callable(made):
        message = f"signer {name}: the factory returned a {type(made).__name__}, it must return a function or a Signer"
        raise ConfigurationError(message)
    return CallableSigner(made, name=name)


def _import(module_name: str, name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            message = f"signer {name}: module {module_name} cannot be imported: {_told(error)}"
            raise ConfigurationError(message) from error
        message = f"signer {name}: there is no module {module_name}: it must be installed, or in {here}"
        raise ConfigurationError(message) from None
    except (Exception, SystemExit) as error:  # a module may be a script that ends
        message = f"signer {name}: module {module_name} cannot be imported: {_told(error)}"
        raise ConfigurationError(message) from error


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
