"""What is wrong with the settings of a context, all of it at once, before anything is served.

Facts
- A context that is made says the first thing that cannot work, and says nothing of what works and is wrong all the
  same: a certificate that has expired, a chain that most clients cannot complete, a key that everybody may read.

Decision
- Every part of the policy is applied to a context that nobody uses, and what each says is kept. Then the certificates
  are looked at. What no client can be served with is an error; what some will not like, or somebody should know, a
  warning.
- `check` is for before; `inspect` looks at the certificates alone, for a context that could be made.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import ShimError
from tlsserver import certificates
from tlsserver.errors import ConfigurationError, ProblemsError, TLSServerError
from tlsserver.policy import PARTS, identity, staple
from tlsserver.policy.certificate import LOOKED_AT_MOST, Certificate
from tlsserver.policy.files import readable
from tlsserver.policy.server_names import check_settings, maybe_server_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography import x509

    from tlsserver.policy.settings import ContextSettings

__all__ = ["Problem", "check", "inspect", "refuse", "soon"]

# Renewal by ACME begins with a third of the life left (90 days) or half of it (6 days): with a fifteenth it has failed
# for a while. Two weeks are time enough for people.
_PART_OF_LIFE = 15
_SOON_AT_MOST = timedelta(days=14)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        is_error: Whether the server must not start with it; else a warning.
        message: One line: what, why, what to do.
    """

    is_error: bool
    message: str


def check(
    settings: ContextSettings,
    *,
    host: str | None = None,
    with_certificate: bool = True,
    with_key: bool = True,
    now: datetime | None = None,
) -> list[Problem]:
    """Find everything that is wrong. Serves nothing; any thread.

    Args:
        settings: Of the context that would be made.
        host: Name or address that clients will use; None: unknown.
        with_certificate: Whether there is a certificate to look at; else neither it nor the key is.
        with_key: Whether the private key is loaded, into its engine if it has one.
        now: The time; None: of the clock.

    Returns:
        Errors and warnings, each once; nothing: it can be served.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    engine_shim.attach()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    found: list[Problem] = []
    for part in PARTS:
        if part not in (identity.apply, staple.apply):
            found += _complaint(part, context, settings)
    if not with_certificate:
        return found
    wrong = _complaint(identity.set_certificate, context, settings)
    found += wrong
    if with_key:
        found += _complaint(_read_key if wrong else identity.set_key, context, settings)
    found += _of_settings_of_names(context, settings, with_keys=with_key and not found)
    now = now or datetime.now(timezone.utc)
    return list(dict.fromkeys([*found, *_of_staple(settings, now), *inspect(settings, host=host, now=now)]))


def inspect(settings: ContextSettings, *, host: str | None = None, now: datetime | None = None) -> list[Problem]:
    """Find what is wrong with certificates and files that can be used.

    Args:
        settings: Of the context.
        host: Name or address that clients will use; None: unknown.
        now: The time; None: of the clock.
    """
    now = now or datetime.now(timezone.utc)
    return [*_of_certificate(settings.certificate, now, host), *_of_key_file(settings.key), *_of_names(settings, now)]


def refuse(problems: list[Problem]) -> None:
    """Let nothing be served with errors.

    Raises:
        ProblemsError: There are some; it has all of them.
    """
    errors = [problem.message for problem in problems if problem.is_error]
    if errors:
        raise ProblemsError(errors)


def soon(certificate: x509.Certificate) -> timedelta:
    """Return how long before its end a certificate should have been renewed."""
    life = certificates.not_after(certificate) - certificates.not_before(certificate)
    return min(life / _PART_OF_LIFE, _SOON_AT_MOST)


def _complaint(
    part: Callable[[SSL.Context, ContextSettings], object], context: SSL.Context, settings: ContextSettings
) -> list[Problem]:
    try:
        part(context, settings)
    except (TLSServerError, ShimError, OSError) as error:
        return [Problem(True, " ".join(str(error).split()))]
    return []


def _read_key(_context: SSL.Context, settings: ContextSettings) -> None:
    """Say at least that there is no key, where there is no certificate that it could belong to."""
    _read_key_file(settings.key, settings)


def _read_key_file(key: object, settings: ContextSettings) -> None:
    """An engine may know a key by a name that is no path."""
    if isinstance(key, PurePath) or (isinstance(key, str) and settings.engine is None):
        with readable("private key", key):
            Path(key).read_bytes()


def _of_settings_of_names(context: SSL.Context, settings: ContextSettings, *, with_keys: bool) -> list[Problem]:
    """Load what is loaded at the start; where no keys are to be, say at least what is wrong with the files."""
    found = _complaint(lambda _, given: check_settings(given), context, settings)
    if not found:
        for one in settings.certificates:
            found += _complaint(_read_certificate(one), context, settings)
    return _complaint(maybe_server_names, context, settings) if with_keys and not found else found


def _read_certificate(one: Certificate) -> Callable[[SSL.Context, ContextSettings], None]:
    """Read the names and the key's file; whether it is the certificate's shows when it is loaded."""

    def read(_context: SSL.Context, settings: ContextSettings) -> None:
        one.expires()
        one.names()
        _read_key_file(one.key, settings)

    return read


def _of_certificate(file: str | Path, now: datetime, host: str | None) -> Iterator[Problem]:
    chain = certificates.maybe_chain(file)
    if chain:
        yield from _of_chain(f"certificate {file}", chain, now, host)


def _of_names(settings: ContextSettings, now: datetime) -> Iterator[Problem]:
    """What some clients will not like: the others are served."""
    given = settings.certificates if isinstance(settings.certificates, Sequence) else ()
    for one in (one for one in given[:LOOKED_AT_MOST] if isinstance(one, Certificate)):
        chain = one.chain()
        if chain:
            yield from (Problem(False, found.message) for found in _of_chain(one.label, chain, now, None))
        if not _is_public(one):
            yield from _of_key_file(one.key)


def _is_public(one: Certificate) -> bool:
    """A certificate alone says which key it is, where an engine has that elsewhere."""
    if isinstance(one.certificate, bytes) or one.key != one.certificate:
        return False
    try:
        return b"PRIVATE KEY-----" not in Path(one.certificate).read_bytes()
    except OSError:  # as in `_of_key_file`
        return False


def _of_chain(what: str, chain: list[x509.Certificate], now: datetime, host: str | None) -> Iterator[Problem]:
    leaf = chain[0]
    yield from _of_times(what, leaf, now, is_leaf=True)
    for one in chain[1:]:
        subject = certificates.describe(one, now).subject
        yield from _of_times(f"certificate {subject!r} in the chain of {what}", one, now, is_leaf=False)
    if not certificates.is_self_issued(leaf) and leaf.issuer not in [one.subject for one in chain[1:]]:
        issuer = certificates.describe(leaf, now).issuer
        yield Problem(
            False,
            f"the chain of {what} looks incomplete: its issuer {issuer!r} is not in the file; "
            "append the authority's intermediate certificates, in order",
        )
    if host is not None and not certificates.serves(leaf, host):
        names = ", ".join(certificates.names(leaf)) or "no name at all"
        yield Problem(False, f"{what} is not for {host}, but for {names}: clients will refuse it there")


def _of_times(what: str, one: x509.Certificate, now: datetime, *, is_leaf: bool) -> Iterator[Problem]:
    begin, end = certificates.not_before(one), certificates.not_after(one)
    if end <= now:
        # Not of a chain's: clients may know another way to an authority.
        yield Problem(is_leaf, f"{what} has expired, {end:%Y-%m-%d %H:%M} UTC: renew it")
    elif begin > now:
        yield Problem(is_leaf, f"{what} is not yet valid, {begin:%Y-%m-%d %H:%M} UTC: look at the clock, or wait")
    elif end - now < soon(one):
        yield Problem(False, f"{what} expires soon, {end:%Y-%m-%d %H:%M} UTC: renew it")


def _of_staple(settings: ContextSettings, now: datetime) -> Iterator[Problem]:
    """Say what the part itself says to the log."""
    try:
        message = staple.trouble(settings, now)
    except ConfigurationError as error:
        yield Problem(True, str(error))
        return
    if message is not None:
        yield Problem(False, message)


def _of_key_file(key: object) -> Iterator[Problem]:
    if not isinstance(key, (str, PurePath)):
        return
    try:
        mode = Path(key).stat().st_mode
    except OSError:  # whoever reads it says so; or it is no file
        return
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
        yield Problem(False, f"private key {key} can be read or written by every user: `chmod 600` it")
