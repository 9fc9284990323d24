"""Client certificates, verified by OpenSSL; which sessions resume is `tlsserver.policy.session_id`'s to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import clients

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.client_certificates import Trust
    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply"]

# All names go into one message, with two bytes of length each; OpenSSL fails the handshake if they do not fit
# (RFC 8446, 4.2.4). A client without a list sends what it has.
_NAMES_MOST = 0xFFFF - 2


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Ask clients for certificates, if that is set.

    Raises:
        ConfigurationError: A file or a setting cannot work.
        engine_shim.ShimError: OpenSSL refuses a certificate or CRL.
    """
    asked, trust = settings.client_certificates, settings.client_trust
    if asked is None or trust is None:
        return
    partial = asked.partial_chains and bool(trust.rootless())
    clients.ask(context, required=asked.mode == "required", depth=asked.depth, partial=partial)
    is_named = _size_of_names(trust) <= _NAMES_MOST
    for authority in trust.authorities:
        clients.trust(context, authority.der, named=is_named)
    whole = clients.CRL_CHECK | clients.CRL_CHECK_ALL
    for crl in trust.crls:
        clients.revoke(context, crl.der, asked.verify_flags & whole or whole)
    if asked.verify_flags:
        clients.set_flags(context, asked.verify_flags)


def _size_of_names(trust: Trust) -> int:
    return sum(2 + len(authority.parsed.subject.public_bytes()) for authority in trust.authorities)
