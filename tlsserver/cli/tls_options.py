"""The options of TLS itself, for every command that serves, and what they come to. To add one, add a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlsserver.errors import ConfigurationError
from tlsserver.policy.client_certificates import MODES, ClientCertificates

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.policy.settings import ContextOptions

__all__ = ["context_options", "tls_options"]

_PATH = click.Path(path_type=Path)

_OPTIONS = (
    click.option(
        "--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: Mozilla's]"
    ),
    # Client certificates.
    click.option(
        "--ssl-ca-certs",
        metavar="PATH",
        type=_PATH,
        help="File or folder of the authorities whose clients may come in.",
    ),
    click.option(
        "--ssl-cert-reqs",
        type=click.Choice(("none", *MODES), case_sensitive=False),
        default="none",
        help="Whether clients are asked for a certificate.",
    ),
    click.option(
        "--ssl-crl", metavar="FILE", type=_PATH, multiple=True, help="Certificates of clients that are revoked."
    ),
    click.option(
        "--ssl-verify-depth",
        type=click.IntRange(min=0),
        help="Most intermediate authorities of a client.  [default: 9]",
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
    return {"ciphers": options["ssl_ciphers"], "client_certificates": _clients(options)}


def _clients(options: dict[str, Any]) -> ClientCertificates | None:
    """Return what is asked of clients; options that do nothing are refused, because somebody believes that they do."""
    mode, place, depth = options["ssl_cert_reqs"], options["ssl_ca_certs"], options["ssl_verify_depth"]
    if mode == "none":
        useless = [name for name in ("ssl_ca_certs", "ssl_crl", "ssl_verify_depth") if options[name] not in (None, ())]
        if useless:
            name = useless[0].replace("_", "-")
            message = f"--{name} does nothing while clients are not asked: give --ssl-cert-reqs optional or required"
            raise ConfigurationError(message)
        return None
    if place is None:
        raise ConfigurationError(f"--ssl-cert-reqs {mode} needs the authorities of the clients: give --ssl-ca-certs")
    where = {"ca_path" if place.is_dir() else "ca_certs": place}
    if depth is not None:
        where["depth"] = depth
    return ClientCertificates(mode, crls=options["ssl_crl"], **where)
