"""Keys that are elsewhere: what `--ssl-keyfile` and `--offload` say of them, and the signer that answers for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from engine_shim import ThreadEngine
from tlsserver.cli import params
from tlsserver.errors import ConfigurationError
from tlsserver.signers.base import DEADLINE, Signer
from tlsserver.signers.keyserver_access import user_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine_shim import Key
    from tlsserver.signers.remote import ClientTLS

__all__ = [
    "KINDS",
    "OPTIONS",
    "SignerSettings",
    "kind_for",
    "kind_of",
    "open_signer",
    "refuse_other_keys",
    "signer_options",
]


@dataclass(frozen=True)
class SignerSettings:
    """What the options say about the signer; None where they say nothing.

    Attributes:
        key: `--ssl-keyfile`.
        certificate: Path of the key's certificate.
        others: The keys of `--ssl-sni`, which are files.
        password: `--ssl-keyfile-password` as it was given: the PIN of a token, or a source of it.
        deadline: `--signer-deadline`.
        fallback: `--signer-fallback`.
        certfile: `--signer-certfile`.
        keyfile: `--signer-keyfile`.
        ca_certs: `--signer-ca-certs`.
        server_name: `--signer-name`.
        users: `--signer-user`.
        module: `--pkcs11-module`.
    """

    key: str = ""
    certificate: Path | None = None
    others: tuple[str, ...] = ()
    password: str | None = None
    deadline: float | None = None
    fallback: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    ca_certs: Path | None = None
    server_name: str | None = None
    users: tuple[str, ...] = ()
    module: Path | None = None


OPTIONS = {
    "deadline": "signer_deadline",
    "fallback": "signer_fallback",
    "certfile": "signer_certfile",
    "keyfile": "signer_keyfile",
    "ca_certs": "signer_ca_certs",
    "server_name": "signer_name",
    "users": "signer_user",
    "module": "pkcs11_module",
}
"""The settings that are options of their own, and the parameters' names."""

_GIVE_BOTH = "give --signer-certfile and --signer-ca-certs"

_DECLARED = (
    click.option(
        "--signer-deadline",
        type=params.seconds,
        help=f"Seconds that a signer has for one operation, with all attempts.  [default: {DEADLINE:g}]",
    ),
    click.option(
        "--signer-fallback",
        type=params.PATH,
        metavar="FILE",
        help="The same private key, for when no signer answers.  [default: such handshakes fail]",
    ),
    click.option(
        "--signer-certfile", type=params.PATH, metavar="FILE", help="Our certificate for key servers that TCP leads to."
    ),
    click.option(
        "--signer-keyfile", type=params.PATH, metavar="FILE", help="Its private key.  [default: in the same file]"
    ),
    click.option(
        "--signer-ca-certs", type=params.PATH, metavar="FILE", help="Authorities of the key servers' certificates."
    ),
    click.option("--signer-name", metavar="NAME", help="In the key servers' certificates.  [default: their hosts']"),
    click.option(
        "--signer-user",
        multiple=True,
        metavar="USER",
        help="Who may listen at Unix sockets of key servers; repeatable.  [default: our own user, and root]",
    ),
    click.option(
        "--pkcs11-module", type=params.PATH, metavar="FILE", help="The token's library.  [default: as the URI says it]"
    ),
)


def signer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, in the order of the table."""
    for option in reversed(_DECLARED):
        command = option(command)
    return command


def kind_of(key: str) -> str | None:
    """Return the kind of signer that a key's name means; None: it means none."""
    kind = key.partition(":")[0]
    return kind if kind in _FORMS else None


def kind_for(offload: str, key: str) -> str | None:
    """Return the kind of signer that performs, by both options; None: none does."""
    if offload in KINDS:
        return offload
    return kind_of(key) if offload == "auto" else None


def refuse_other_keys(kind: str, key: str) -> None:
    """Let each kind of signer have the keys of its own form.

    Raises:
        ConfigurationError: It is one of another form.
    """
    means = kind_of(key)
    if kind == "isolated" and means is not None:
        raise ConfigurationError(f"--offload isolated is for a key in a file, not for {means}: leave it out")
    if kind in _FORMS and means != kind:
        raise ConfigurationError(f"--offload {kind} needs a key of its own: give --ssl-keyfile {_FORMS[kind]}")


def open_signer(kind: str, settings: SignerSettings, threads: int | None) -> Signer:
    """Make the signer that the options ask for.

    Args:
        kind: One of `KINDS`.
        settings: What they say of it.
        threads: `--offload-threads`.

    Raises:
        ConfigurationError: They cannot work.
        engine_shim.ShimError: A key cannot be loaded, or OpenSSL cannot be reached.
    """
    refuse_other_keys(kind, settings.key)
    return KINDS[kind](settings, threads)


def _common(settings: SignerSettings) -> dict[str, Any]:
    deadline = DEADLINE if settings.deadline is None else settings.deadline
    return {"deadline": deadline, "fallback": _fallback(settings.fallback)}


def _fallback(path: Path | None) -> Key | None:
    if path is None:
        return None
    return ThreadEngine(1).load_key(params.read(path, "key", "--signer-fallback"))


def _open_pkcs11(settings: SignerSettings, threads: int | None) -> Signer:
    with _extra("pkcs11"):
        from tlsserver.signers.pkcs11 import Pkcs11Signer  # noqa: PLC0415 - only where its extra is needed
    more: dict[str, Any] = {} if threads is None else {"threads": threads}
    return Pkcs11Signer(settings.key, module=settings.module, pin=_pin(settings.password), **more, **_common(settings))


def _pin(password: str | None) -> str | bytes | None:
    """Tell a source, which the signer reads when it needs the PIN, from the PIN itself."""
    if password is None or password == "prompt" or password.startswith(("file:", "env:")):  # noqa: S105 - a source
        return password
    return password.removeprefix("pass:").encode(errors="surrogateescape")


def _open_remote(settings: SignerSettings, threads: int | None) -> Signer:
    from tlsserver.signers.remote import ClientTLS, RemoteSigner  # noqa: PLC0415 - only where it is wanted

    del threads
    tls = _client_tls(settings, ClientTLS)
    users = [user_id(name) for name in settings.users] or None
    return RemoteSigner(_addresses(settings.key), tls=tls, peer_uids=users, **_common(settings))


def _client_tls(settings: SignerSettings, make: type[ClientTLS]) -> ClientTLS | None:
    """Say who we are to key servers; None where no option does."""
    if settings.certfile is None and settings.ca_certs is None:
        if settings.keyfile is not None or settings.server_name is not None:
            raise ConfigurationError("--signer-keyfile and --signer-name are for key servers with TLS: " + _GIVE_BOTH)
        return None
    if settings.certfile is None or settings.ca_certs is None:
        raise ConfigurationError("half of what TLS to a key server needs is missing: " + _GIVE_BOTH)
    return make(settings.certfile, settings.keyfile or settings.certfile, settings.ca_certs, settings.server_name)


def _addresses(key: str) -> list[str]:
    addresses = [one for one in key.removeprefix("remote:").split(",") if one]
    if not addresses:
        raise ConfigurationError(f"key {key!r} names no signer: write {_FORMS['remote']}")
    return addresses


def _open_isolated(settings: SignerSettings, threads: int | None) -> Signer:
    from tlsserver.signers.isolated import IsolatedSigner  # noqa: PLC0415 - only where it is wanted

    keys = (settings.key, *settings.others)
    return IsolatedSigner(keys, password=settings.password, threads=threads, **_common(settings))


def _open_python(settings: SignerSettings, threads: int | None) -> Signer:
    from tlsserver.signers.load import make_signer  # noqa: PLC0415 - only where it is wanted

    del threads  # the factory says how many
    return make_signer(settings.key.removeprefix("python:"), settings.certificate or "")


@contextlib.contextmanager
def _extra(name: str) -> Any:  # noqa: ANN401 - contextlib's
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"--offload {name} needs packages that are not there ({error}): `pip install 'tlsserver[{name}]'`"
        ) from error


_FORMS = {
    "pkcs11": "pkcs11:token=NAME;object=LABEL",
    "remote": "remote:ADDRESS[,ADDRESS...], an address being unix:PATH or HOST:PORT",
    "python": "python:MODULE:FACTORY",
}

KINDS: dict[str, Callable[[SignerSettings, int | None], Signer]] = {
    "pkcs11": _open_pkcs11,
    "remote": _open_remote,
    "isolated": _open_isolated,
    "python": _open_python,
}
"""The kinds by name. To add one, add a row, and one to `ENGINES` in tlsserver/cli/offload.py."""
