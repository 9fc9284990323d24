"""The options of TLS itself, for every command that serves, and what they come to. To add one, add a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tlsserver.cli import params

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.policy.settings import ContextOptions

__all__ = ["context_options", "tls_options"]

_OPTIONS = (
    click.option(
        "--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: Mozilla's]"
    ),
    # OCSP
    click.option("--ssl-ocsp-staple", type=params.PATH, metavar="FILE", help="OCSP response for the certificate, DER."),
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
        "ocsp_staple": options["ssl_ocsp_staple"],
    }
