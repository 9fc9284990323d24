"""Server names (SNI): which certificates a connection has.

Facts
- Reading a certificate and its key takes 0.1 to 1 ms, and some 10 KB: 100,000 of them neither fit into a start nor,
  without a thought, into memory.
- A client names one host. Of several certificates for it OpenSSL takes the one that the client's signature algorithms
  allow; it has room for one of each kind of key.

Decision
- At the start only the table of names is made. Up to 64 identities (the certificates of one name, together) are read
  then as well, so that mistakes in them show at once; all others when a client first asks for them.
- An exact name goes before a wildcard. The main certificate stands beside the others of its names, where there is none
  of its kind of key, and for whom no name is known.

Trade-off
- With more than 64 identities a file that is wrong costs the handshakes that need it, with a line in the log each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import engine_shim
from engine_shim.identity import Identity
from engine_shim.server_names import MAIN, BadNameError, NameTable, keep_names
from tlsserver.asking import complaint
from tlsserver.errors import ConfigurationError
from tlsserver.policy.certificate import Certificate
from tlsserver.policy.identity import engine_of

if TYPE_CHECKING:
    from OpenSSL import SSL

    from engine_shim import BaseEngine, Engine
    from tlsserver.policy.settings import ContextSettings

__all__ = ["UNKNOWN_NAMES", "ServerNames", "check_settings", "maybe_server_names"]

UNKNOWN_NAMES = ("default", "strict")

# 64 take 10 to 50 ms.
_READ_AT_START = 64

# 7 to 10 KB each: up to 20 MB.
LOADED_MOST = 2000


class ServerNames:
    """The certificates of a context beside its main one. Any thread.

    Attributes:
        engine: Loads and performs keys that are given by path; None: OpenSSL.
        engines: All that perform keys of these certificates.
        table: What C decides by.
        on_client_hello: Asked first; None: nobody is.
    """

    def __init__(self, context: SSL.Context, settings: ContextSettings) -> None:
        self.engine = _engine_for_paths(settings)
        self.on_client_hello = settings.on_client_hello
        certificates = _checked(settings)
        self.engines = _engines(certificates, self.engine)
        main = Certificate(settings.certificate, settings.key, password=settings.password)
        numbers, self._groups = _numbered(certificates, main)
        try:
            self.table = NameTable(
                context,
                numbers,
                identities=len(self._groups),
                loaded_most=LOADED_MOST,
                strict=settings.unknown_names == "strict",
                asks=settings.on_client_hello is not None,
            )
        except BadNameError as error:
            message = f"server name {error.name!r} is no host name: give one in ASCII (xn--...), or with *. in front"
            raise ConfigurationError(message) from error
        if len(self._groups) <= _READ_AT_START:
            self._read_all(context)

    def _read_all(self, context: SSL.Context) -> None:
        for number in range(MAIN + 1, len(self._groups)):
            identity = self.load(number)
            try:
                identity.check(context)
            except engine_shim.ShimError as error:
                message = f"{self._groups[number][0].label} cannot be used: {error}"
                raise ConfigurationError(message) from error

    def load(self, number: int) -> Identity:
        """Read the certificates of a number, and keep them at hand.

        Raises:
            ConfigurationError: They cannot be used.
        """
        identity = Identity()
        for certificate in self._groups[number]:
            certificate.load(identity, self.engine)
        self.table.put(number, identity)
        return identity

    def label(self, number: int) -> str:
        """What to call a number in the log."""
        return self._groups[number][0].label


def maybe_server_names(context: SSL.Context, settings: ContextSettings) -> ServerNames | None:
    """Tell a context its names, when it knows everything else.

    Returns:
        None: it has one certificate for everybody.

    Raises:
        ConfigurationError: A certificate or a setting cannot work.
    """
    check_settings(settings)
    one_for_all = not settings.certificates and settings.unknown_names == "default"
    if one_for_all and settings.on_client_hello is None:
        keep_names(context)
        return None
    return ServerNames(context, settings)


def check_settings(settings: ContextSettings) -> None:
    """Look at the settings, not at the certificates.

    Raises:
        ConfigurationError: One of them cannot work.
    """
    if settings.unknown_names not in UNKNOWN_NAMES:
        message = f"unknown_names={settings.unknown_names!r} is not known: choose from {', '.join(UNKNOWN_NAMES)}"
        raise ConfigurationError(message)
    _check_callable(settings.on_client_hello)
    _checked(settings)


def _check_callable(asked: object) -> None:
    if asked is None:
        return
    message = complaint(asked, "on_client_hello", "ClientHelloRequest", "request.complete()")
    if message is not None:
        raise ConfigurationError(message)


def _checked(settings: ContextSettings) -> tuple[Certificate, ...]:
    given = settings.certificates
    if not isinstance(given, Sequence) or not all(isinstance(one, Certificate) for one in given):
        message = "certificates must be a sequence of tlsserver.Certificate: make each with Certificate(path, key)"
        raise ConfigurationError(message)
    return tuple(given)


def _engine_for_paths(settings: ContextSettings) -> Engine | None:
    """Without an engine of the context's the main key's, if it is one that loads keys."""
    main = None if isinstance(settings.key, (str, PurePath)) else engine_of(settings)
    return settings.engine or (main if isinstance(main, engine_shim.Engine) else None)


def _engines(certificates: Sequence[Certificate], engine: Engine | None) -> tuple[BaseEngine, ...]:
    found = {one.engine_of(engine) for one in certificates}
    return tuple(one for one in found if one is not None)


def _numbered(
    certificates: Sequence[Certificate], main: Certificate
) -> tuple[dict[str, int], list[tuple[Certificate, ...]]]:
    """Give each set of certificates that some name has a number; `MAIN`: the main one alone."""
    by_name: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        for name in dict.fromkeys(_same(name) for name in certificate.names()):
            by_name.setdefault(name, []).append(certificate)
    for name, found in by_name.items():
        _refuse_two_of_a_kind(name, found)
    for name in dict.fromkeys(map(_same, _names_of_main(main))):
        _add_main(by_name.setdefault(name, []), main)
    return _group(by_name, main)


def _group(
    by_name: dict[str, list[Certificate]], main: Certificate
) -> tuple[dict[str, int], list[tuple[Certificate, ...]]]:
    groups: list[tuple[Certificate, ...]] = [(main,)]
    number_of: dict[tuple[Certificate, ...], int] = {groups[0]: MAIN}
    numbers: dict[str, int] = {}
    for name, found in by_name.items():
        group = tuple(found)
        if group not in number_of:
            number_of[group] = len(groups)
            groups.append(group)
        numbers[name] = number_of[group]
    return numbers, groups


def _same(name: str) -> str:
    return name.lower().removesuffix(".")


def _names_of_main(main: Certificate) -> tuple[str, ...]:
    """The main one may be for no name: then it is for those whom nobody else is for."""
    try:
        return main.names()
    except ConfigurationError:
        return ()


def _add_main(found: list[Certificate], main: Certificate) -> None:
    if not found or main.kind() not in {one.kind() for one in found}:
        found.append(main)


def _refuse_two_of_a_kind(name: str, found: list[Certificate]) -> None:
    if len(found) == 1:
        return
    kinds: dict[str, Certificate] = {}
    for one in found:
        kind = one.kind()
        if kind in kinds:
            both = f"{kinds[kind].label} and {one.label}"
            message = f"server name {name} has two certificates with {kind} keys, {both}: give one"
            raise ConfigurationError(message)
        kinds[kind] = one
