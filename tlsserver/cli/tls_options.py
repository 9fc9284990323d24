"""The options of TLS itself, for every command that serves, and what they come to. To add one, add a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tlsserver.errors import ConfigurationError
from tlsserver.policy.certificate import Certificate
from tlsserver.policy.server_names import UNKNOWN_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.policy.settings import ContextOptions

__all__ = ["context_options", "tls_options"]

_OPTIONS = (
    click.option(
        "--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: Mozilla's]"
    ),
    # Server names.
    click.option(
        "--ssl-sni",
        metavar="NAME=CERT,KEY",
        multiple=True,
        help="A certificate for clients that ask for NAME, which may begin with *. ; KEY may be in CERT. Repeatable.",
    ),
    click.option(
        "--ssl-unknown-names",
        type=click.Choice(UNKNOWN_NAMES),
        default="default",
        show_default=True,
        help="Whoever asks for a name that no certificate is for gets the default one, or is refused.",
    ),
)


def tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, in the order of the table."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def context_options(options: dict[str, Any]) -> ContextOptions:
    """Return what the options say, for `tlsserver.TLSContext`.

    Raises:
        ConfigurationError: One of them cannot work.
    """
    return {
        "ciphers": options["ssl_ciphers"],
        "certificates": tuple(_certificate(given) for given in options["ssl_sni"]),
        "unknown_names": options["ssl_unknown_names"],
    }


def _certificate(given: str) -> Certificate:
    """Read NAME=CERT,KEY; paths may contain the signs between, but for a key's comma."""
    name, _, paths = given.partition("=")
    certificate, _, key = paths.rpartition(",") if "," in paths else (paths, "", paths)
    if not (name and certificate and key):
        message = f"--ssl-sni {given!r} cannot be read: give NAME=CERT,KEY"
        raise ConfigurationError(message)
    return Certificate(certificate, key, names=(name,))
