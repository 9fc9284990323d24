"""The options of TLS itself, for every command that serves, and what they come to. To add one, add a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tlsserver.policy import tickets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.policy.settings import ContextOptions
    from tlsserver.policy.ticket_source import TicketSource

__all__ = ["context_options", "tls_options"]

_OPTIONS = (
    click.option(
        "--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: Mozilla's]"
    ),
    click.option(
        "--ssl-ticket-keys",
        metavar="FILE|redis://HOST",
        multiple=True,
        help="Keys of session tickets, 80 or 48 bytes each; the first encrypts.  [default: this process's own]",
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
    return {"ciphers": options["ssl_ciphers"], "ticket_keys": _ticket_source(options)}


def _ticket_source(options: dict[str, Any]) -> TicketSource:
    """Made once: the context of a reload goes on with the keys of the one before."""
    if "ticket_source" not in options:
        options["ticket_source"] = tickets.source_of(options["ssl_ticket_keys"] or None)
    source: TicketSource = options["ticket_source"]
    return source
