"""Values of options that click does not know."""

from __future__ import annotations

import ipaddress
import math
import os
from pathlib import Path

import click

from tlsserver.errors import ConfigurationError

PATH = click.Path(path_type=Path)


def seconds(text: str) -> float:
    """Return a positive, finite number of seconds.

    Raises:
        click.BadParameter: It is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text!r} is not a number of seconds above 0")
    return value


def password(source: str | None, option: str = "--ssl-keyfile-password") -> str | None:
    """Return the password that `source` tells, in the forms of openssl-passphrase-options(1).

    Args:
        source: `file:PATH` for a file's first line, `env:NAME` for an environment variable, `pass:TEXT`, or the text.
        option: The option that told it.

    Raises:
        ConfigurationError: There is no such file or variable.
    """
    kind, _, rest = (source or "").partition(":")
    if kind == "pass":
        return rest
    if kind == "env":
        if rest not in os.environ:
            raise ConfigurationError(f"no password in the environment variable {rest}: it is not set; set it first")
        return os.environ[rest]
    if kind == "file":
        data = read(Path(rest), "password file", option)
        return (data.decode(errors="surrogateescape").splitlines() or [""])[0]
    return source


def read(path: Path, what: str, option: str) -> bytes:
    """Return a file's content.

    Args:
        path: Where it is.
        what: What to call it in a message.
        option: The option that named it.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{what} {path} cannot be read: {error.strerror}; give another path with {option}"
        ) from error


def name_of_host(host: str) -> str | None:
    """Return a host's name for SNI, which takes no addresses (RFC 6066 3); None if it is one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def url(host: str, port: int) -> str:
    """Return where a browser finds what listens on an address; for all addresses of the machine, localhost."""
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"https://[{shown}]:{port}/" if ":" in shown else f"https://{shown}:{port}/"
