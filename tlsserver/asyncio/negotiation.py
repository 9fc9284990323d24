"""What a `tlsserver.asyncio.SSLContext` negotiates: the names of `ssl.SSLContext` that say so."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL

import engine_shim
from engine_shim import context_facts
from tlsserver.asyncio.changing import ChangingContext, told_as_ssl_does
from tlsserver.asyncio.plain import ContextError, NotSupportedError
from tlsserver.errors import ConfigurationError
from tlsserver.policy import alpn, groups, key_log, session_limits, signature_algorithms, suites
from tlsserver.policy.settings import ContextSettings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

__all__ = ["Negotiation"]

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_LEAST = ssl.TLSVersion.MINIMUM_SUPPORTED
_MOST = ssl.TLSVersion.MAXIMUM_SUPPORTED

# They change nothing: it is done always, never, or told another way. Some have no name in older releases of Python.
_OPTIONS = int(
    ssl.OP_ALL
    | ssl.OP_NO_SSLv2
    | ssl.OP_NO_SSLv3
    | ssl.OP_NO_COMPRESSION
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_TICKET
    | ssl.OP_CIPHER_SERVER_PREFERENCE
    | ssl.OP_ENABLE_MIDDLEBOX_COMPAT
    | 1 << 7  # OP_IGNORE_UNEXPECTED_EOF: an end without close_notify is told to the protocol, as asyncio does it
    | 1 << 26  # OP_NO_TLSv1
    | 1 << 28  # OP_NO_TLSv1_1
    | 1 << 27  # OP_NO_TLSv1_2
    | 1 << 29  # OP_NO_TLSv1_3
)


class Negotiation(ChangingContext):
    """Versions, suites, groups, protocols, tickets."""

    @property
    def minimum_version(self) -> ssl.TLSVersion:
        """The least version; never below TLS 1.2 (RFC 8996)."""
        modern = self._asked.options.get("profile") == "modern"
        return self._asked.minimum or (ssl.TLSVersion.TLSv1_3 if modern else ssl.TLSVersion.TLSv1_2)

    @minimum_version.setter
    def minimum_version(self, value: int) -> None:
        version = ssl.TLSVersion(value)
        if version in (_LEAST, _MOST):
            version = ssl.TLSVersion.TLSv1_2 if version is _LEAST else ssl.TLSVersion.TLSv1_3
        _refuse_version(version)
        self._change(minimum=version)

    @property
    def maximum_version(self) -> ssl.TLSVersion:
        """The newest version."""
        return self._asked.maximum

    @maximum_version.setter
    def maximum_version(self, value: int) -> None:
        version = ssl.TLSVersion(value)
        if version is _LEAST:
            version = ssl.TLSVersion.TLSv1_2
        if version is not _MOST:
            _refuse_version(version)
        self._change(maximum=version)

    @property
    def options(self) -> ssl.Options:
        """Options of OpenSSL; `docs/asyncio-contexts.md` says which are honoured."""
        return ssl.Options(self._asked.flags)

    @options.setter
    def options(self, value: int) -> None:
        unknown = ssl.Options(int(value) & ~_OPTIONS)
        if unknown:
            raise NotSupportedError(f"options {unknown!r}: not among those that can be set here: leave it out")
        self._change(flags=int(value))

    def set_ciphers(self, cipherlist: str, /) -> None:
        """Choose the suites of TLS 1.2, in the form of ciphers(1).

        Raises:
            ssl.SSLError: A word is unknown, or no suite is left.
        """
        self._try(suites.apply, ciphers=cipherlist)
        self._change_option("ciphers", cipherlist)

    def set_ciphersuites(self, ciphersuites: str, /) -> None:
        """Choose the suites of TLS 1.3, by name with colons between them.

        Raises:
            ssl.SSLError: One is unknown.
        """
        self._try(suites.apply, ciphersuites=ciphersuites)
        self._change_option("ciphersuites", ciphersuites)

    def get_ciphers(self) -> Any:  # noqa: ANN401 - as in typeshed: dicts of many types
        """Return the suites in their order, as the standard library describes those that it knows."""
        context = self._with_suites()
        known = _described_suites()
        names = SSL.Connection(context, None).get_cipher_list()
        return [known.get(name, {"name": name, "protocol": "unknown"}) for name in names]

    def set_groups(self, groups_: str, /) -> None:
        """Choose the groups of the key exchange, by name with colons between them, the preferred one first.

        Raises:
            ssl.SSLError: One is unknown.
        """
        self._try(groups.apply, groups=groups_)
        self._change_option("groups", groups_)

    def get_groups(self, *, include_aliases: bool = False) -> list[str]:
        """Return the groups that this OpenSSL has for TLS; it has no list of its aliases."""
        del include_aliases
        return groups.known_groups(_scratch())

    def set_ecdh_curve(self, curve_name: str | bytes, /) -> None:
        """Choose one group for the key exchange.

        Raises:
            ValueError: It is unknown.
        """
        try:
            self.set_groups(curve_name.decode() if isinstance(curve_name, bytes) else curve_name)
        except ContextError as error:  # for which the standard library has no ssl.SSLError
            raise ConfigurationError(str(error)) from error

    def set_server_sigalgs(self, sigalgs: str, /) -> None:
        """Choose what certificates are signed with, and handshakes, by name with colons between them.

        Raises:
            ssl.SSLError: One is unknown.
        """
        self._try(signature_algorithms.apply, signature_algorithms=sigalgs)
        self._change_option("signature_algorithms", sigalgs)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Choose the application protocols, the preferred one first (RFC 7301).

        Raises:
            ssl.SSLError: One is empty, or longer than 255 bytes.
            TypeError: One is no text.
        """
        names = tuple(alpn_protocols)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"ALPN protocol {name!r} is no str: give text, such as 'h2'")
        with told_as_ssl_does():
            alpn.encoded(names)
        self._change_option("alpn", names)

    @property
    def num_tickets(self) -> int:
        """How many tickets a client of TLS 1.3 is given after a full handshake."""
        return int(self._asked.options.get("num_tickets", 2))

    @num_tickets.setter
    def num_tickets(self, value: int) -> None:
        if not isinstance(value, int):
            raise TypeError(f"integer argument expected, got {type(value).__name__}")
        if value < 0:
            raise ValueError("value must be non-negative")
        if self._protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("SSLContext is not a server context.")
        self._try(session_limits.apply, num_tickets=value)
        self._change_option("num_tickets", value)

    @property
    def keylog_filename(self) -> Any:  # noqa: ANN401 - a path of any kind, or None
        """File that the secrets of all handshakes are written to; None: none. Never in production."""
        return self._asked.options.get("key_log")

    @keylog_filename.setter
    def keylog_filename(self, value: str | os.PathLike[str] | None) -> None:
        self._try(key_log.apply, key_log=value)
        self._change_option("key_log", value)

    @property
    def security_level(self) -> int:  # type: ignore[override] # it cannot be set there either
        """OpenSSL's, as the ciphers leave it."""
        return context_facts.security_level(self._with_suites())

    def session_stats(self) -> dict[str, int]:
        """Count handshakes and sessions of the contexts in use; a change begins anew."""
        found = [one.pyopenssl for one in (self._server, self._client) if one is not None]
        counts = [context_facts.session_counts(context) for context in found or [_scratch()]]
        return {name: sum(count[name] for count in counts) for name in counts[0]}

    def _with_suites(self) -> SSL.Context:
        """Return a context with the suites of the connections: a given one is that itself."""
        given = (self._server or self._client) if self._is_given else None
        return self._try(suites.apply) if given is None else given.pyopenssl

    def _try(self, part: Callable[[SSL.Context, ContextSettings], object], **wanted: Any) -> SSL.Context:  # noqa: ANN401 - of ContextSettings
        """Try one part of the policy on a context that nobody uses.

        Raises:
            ContextError: It cannot work.
        """
        names = ("ciphers", "ciphersuites", "profile", "groups")
        given = {name: value for name, value in self._asked.options.items() if name in names}
        context = _scratch()
        with told_as_ssl_does():
            part(context, ContextSettings("", "", **{**given, **wanted}))
        return context


def _scratch() -> SSL.Context:
    engine_shim.attach()
    return SSL.Context(SSL.TLS_SERVER_METHOD)


def _refuse_version(version: ssl.TLSVersion) -> None:
    if version not in _VERSIONS:
        raise NotSupportedError(f"{version.name} is not supported: TLS 1.2 is the least (RFC 8996)")


def _described_suites() -> dict[str, Any]:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        plain.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    except ssl.SSLError as error:  # some build without them: its own defaults are described
        raise ContextError(f"Python's ssl describes no ciphers: {error}") from error
    return {one["name"]: one for one in plain.get_ciphers()}
