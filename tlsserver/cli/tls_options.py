"""The options of TLS itself, for every command that serves, and what they come to. To add one, add a row."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from engine_shim import ShimError
from tlsserver.cli import params, signers
from tlsserver.errors import ConfigurationError, ProblemsError, TLSServerError
from tlsserver.policy import tickets
from tlsserver.policy.certificate import Certificate
from tlsserver.policy.client_certificates import MODES, ClientCertificates
from tlsserver.policy.profiles import PROFILES
from tlsserver.policy.server_names import UNKNOWN_NAMES
from tlsserver.policy.session_limits import LIFETIME_MOST, TICKETS_MOST
from tlsserver.policy.versions import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.policy.settings import ContextOptions
    from tlsserver.policy.ticket_source import TicketSource

__all__ = ["context_options", "keys_of_names", "tls_options", "workable_options"]

# What is negotiated, and the key log.
_NEGOTIATION = (
    click.option(
        "--ssl-profile",
        type=click.Choice(tuple(PROFILES)),
        default="intermediate",
        help="What holds where no other option says so; modern: TLS 1.3 alone.",
    ),
    click.option("--ssl-min-version", type=click.Choice(tuple(VERSIONS)), help="Of TLS.  [default: the profile's]"),
    click.option("--ssl-max-version", type=click.Choice(tuple(VERSIONS)), help="Of TLS.  [default: the newest]"),
    click.option("--ssl-ciphersuites", metavar="LIST", help="TLS 1.3 suites, by name.  [default: the profile's]"),
    click.option(
        "--ssl-groups",
        metavar="LIST",
        help="Of the key exchange, the preferred one first.  [default: X25519MLKEM768/X25519:P-256:P-384]",
    ),
    click.option("--ssl-sigalgs", metavar="LIST", help="Signature algorithms.  [default: OpenSSL's]"),
    click.option(
        "--ssl-num-tickets", type=click.IntRange(0, TICKETS_MOST), default=2, help="Tickets for a TLS 1.3 client."
    ),
    click.option(
        "--ssl-session-lifetime",
        type=click.IntRange(1, LIFETIME_MOST),
        default=7200,
        help="Seconds for which a session may be resumed.",
    ),
    click.option(
        "--ssl-session-cache",
        type=click.IntRange(min=0),
        default=4096,
        help="Sessions in memory, for TLS 1.2 clients without tickets; 0: none.",
    ),
    click.option(
        "--ssl-keylog",
        metavar="FILE",
        envvar=("TLSSERVER_SSL_KEYLOG", "SSLKEYLOGFILE"),
        help="Write the secrets of all connections to FILE, for Wireshark; also SSLKEYLOGFILE in the environment.",
    ),
)

_PATH = click.Path(path_type=Path)

_CLIENTS = (
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

_OPTIONS = (
    click.option(
        "--ssl-ciphers", metavar="LIST", help="TLS 1.2 suites, as ciphers(1) writes them.  [default: the profile's]"
    ),
    click.option(
        "--ssl-ticket-keys",
        metavar="FILE|redis://HOST",
        multiple=True,
        help="Keys of session tickets, 80 or 48 bytes each; the first encrypts.  [default: this process's own]",
    ),
    *_NEGOTIATION,
    *_CLIENTS,
    click.option("--ssl-ocsp-staple", type=params.PATH, metavar="FILE", help="OCSP response for the certificate, DER."),
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
        ProblemsError: Some of them cannot work.
    """
    found, problems = workable_options(options)
    if problems:
        raise ProblemsError(problems)
    return found


def workable_options(options: dict[str, Any]) -> tuple[ContextOptions, list[str]]:
    """Return what the options say, without those that cannot work, and what is wrong with these."""
    found: dict[str, Any] = {
        "ciphers": options["ssl_ciphers"],
        "ocsp_staple": options["ssl_ocsp_staple"],
        "unknown_names": options["ssl_unknown_names"],
        **_negotiation(options),
    }
    problems = [problem for name, parse in _PARSED.items() for problem in _attempt(found, name, parse, options)]
    return cast("ContextOptions", found), problems


def _attempt(
    found: dict[str, Any], name: str, parse: Callable[[dict[str, Any]], object], options: dict[str, Any]
) -> list[str]:
    try:
        found[name] = parse(options)
    except (TLSServerError, ShimError, OSError) as error:
        return [str(error)]
    return []


def _ticket_source(options: dict[str, Any]) -> TicketSource:
    """Made once: the context of a reload goes on with the keys of the one before."""
    if "ticket_source" not in options:
        options["ticket_source"] = tickets.source_of(options["ssl_ticket_keys"] or None)
    source: TicketSource = options["ticket_source"]
    return source


def _negotiation(options: dict[str, Any]) -> ContextOptions:
    return {
        "profile": options["ssl_profile"],
        "min_version": options["ssl_min_version"],
        "max_version": options["ssl_max_version"],
        "ciphersuites": options["ssl_ciphersuites"],
        "groups": options["ssl_groups"],
        "signature_algorithms": options["ssl_sigalgs"],
        "num_tickets": options["ssl_num_tickets"],
        "session_lifetime": options["ssl_session_lifetime"],
        "session_cache_size": options["ssl_session_cache"],
        "key_log": options["ssl_keylog"] or None,  # empty: not even what SSLKEYLOGFILE says
    }


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


def keys_of_names(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the files of the keys that `--ssl-sni` names; those that cannot be read are left out."""
    found = []
    for given in options["ssl_sni"]:
        with contextlib.suppress(ConfigurationError):
            found.append(_parts(given)[2])
    return tuple(found)


def _certificates(options: dict[str, Any]) -> tuple[Certificate, ...]:
    """A signer has the keys: here their certificates say which they are."""
    elsewhere = options["offload"] in signers.KINDS
    parts = [_parts(given) for given in options["ssl_sni"]]
    return tuple(
        Certificate(certificate, certificate if elsewhere else key, names=(name,)) for name, certificate, key in parts
    )


def _parts(given: str) -> tuple[str, str, str]:
    """Read NAME=CERT,KEY; paths may contain the signs between, but for a key's comma."""
    name, _, paths = given.partition("=")
    certificate, _, key = paths.rpartition(",") if "," in paths else (paths, "", paths)
    if not (name and certificate and key):
        message = f"--ssl-sni {given!r} cannot be read: give NAME=CERT,KEY"
        raise ConfigurationError(message)
    return name, certificate, key


# What takes more than reading.
_PARSED: dict[str, Callable[[dict[str, Any]], object]] = {
    "ticket_keys": _ticket_source,
    "client_certificates": _clients,
    "certificates": _certificates,
}
