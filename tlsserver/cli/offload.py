"""What `--offload` may say: the registry of engines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine_shim import LatencyEngine, ThreadEngine
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Engine


@dataclass(frozen=True)
class EngineChoice:
    """One kind of engine.

    Attributes:
        form: How the option is written.
        make: Makes the engine from what stands behind the colon and the number of threads, either None if not given;
            returns None where OpenSSL is to perform on the loop's thread.
    """

    form: str
    make: Callable[[str | None, int | None], Engine | None]


def _off(argument: str | None, _threads: int | None) -> None:
    _no_argument("off", argument)


def _threads(argument: str | None, threads: int | None) -> Engine:
    _no_argument("threads", argument)
    return ThreadEngine(threads or len(os.sched_getaffinity(0)))


def _latency(argument: str | None, threads: int | None) -> Engine:
    try:
        seconds = float(argument or "") / 1000
    except ValueError:
        raise ConfigurationError(
            f"engine latency needs a number of milliseconds, not {argument or ''!r}: write latency:200"
        ) from None
    return LatencyEngine(seconds, threads=threads or 1)


ENGINES = {
    "off": EngineChoice("off", _off),
    "threads": EngineChoice("threads", _threads),
    "latency": EngineChoice("latency:MS", _latency),
}
"""The engines by name. To add one, add a row."""

FORMS = "|".join(choice.form for choice in ENGINES.values())


def open_engine(text: str, threads: int | None = None) -> Engine | None:
    """Make the engine that `--offload` asks for.

    Args:
        text: A name, or `NAME:ARGUMENT`.
        threads: What `--offload-threads` says; None: as many as suit the engine.

    Returns:
        None for "off".

    Raises:
        ConfigurationError: There is no such engine, or it does not take these values.
        engine_shim.LinkageError: OpenSSL cannot be reached.
    """
    name, colon, argument = text.partition(":")
    if name not in ENGINES:
        raise ConfigurationError(f"engine {name!r} is unknown: choose one of {FORMS} for --offload")
    try:
        return ENGINES[name].make(argument if colon else None, threads)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"engine {text!r} cannot be made: {error}; see `tlsserver serve --help`") from error


def _no_argument(name: str, argument: str | None) -> None:
    if argument is not None:
        raise ConfigurationError(f"engine {name} takes nothing behind a colon, but got {argument!r}: write {name}")
