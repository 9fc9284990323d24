"""A server that asks for certificates, its clients, and one handshake at a time between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

from engine_shim import Status
from support.client_authority import DAY, SERVER, Authority, Holder, now
from support.pair import Pair, client_context
from tlsserver import ClientCertificates, TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Identity
    from tlsserver import ClientCertificateRequest


class House:
    """Authorities and their clients, made once: making keys is what takes time."""

    def __init__(self, folder: Path) -> None:
        self.root = Authority(folder, "root")
        self.middle = Authority(folder, "middle", self.root)
        self.lower = Authority(folder, "lower", self.middle)
        self.stranger = Authority(folder, "stranger")
        self.good = self.root.issue("good")
        self.other = self.root.issue("other")
        self.below = self.middle.issue("below")
        self.deep = self.lower.issue("deep")
        self.revoked = self.root.issue("revoked")
        self.expired = self.root.issue("expired", valid=(now() - 3 * DAY, now() - DAY))
        self.early = self.root.issue("early", valid=(now() + DAY, now() + 2 * DAY))
        self.server = self.root.issue("server", usage=SERVER)
        self.unknown = self.stranger.issue("unknown")
        self.crl = self.root.revoke(self.revoked)


def server(identity: Identity, asked: ClientCertificates, **options: Any) -> TLSContext:
    return TLSContext(identity.cert, identity.key, client_certificates=asked, **options)


def asking(
    house: House, hook: Callable[[ClientCertificateRequest], object], mode: Any = "required"
) -> ClientCertificates:
    """Ask the hook about the root's clients."""
    return ClientCertificates(mode, house.root.cert, on_verified=hook)


def client(identity: Identity, holder: Holder | None, version: str | None = None) -> SSL.Context:
    context = client_context(identity, version)
    if holder is not None:
        context.use_certificate_chain_file(str(holder.cert))
        context.use_privatekey_file(str(holder.key))
    return context


def alert(pair: Pair) -> str:
    """Read what the server has sent last: the alert, in OpenSSL's words without its version."""
    pair.step_client()
    if pair.client_error is None:
        with pytest.raises(SSL.Error) as caught:
            pair.client.recv(1)
        pair.client_error = caught.value
    return str(pair.client_error.args[0][-1][-1]).partition("alert ")[2]


def verdict(context: TLSContext, far: SSL.Context, *, offloaded: bool = True) -> str:
    """Try to come in: "" is success."""
    with Pair(context.pyopenssl, far, offloaded=offloaded) as pair:
        if pair.finish() is Status.DONE:
            assert pair.echo() == b"ping"
            return ""
        return alert(pair)


def session_of(context: TLSContext, far: SSL.Context) -> SSL.Session:
    """Come in, and take a session along."""
    with Pair(context.pyopenssl, far) as pair:
        assert pair.finish() is Status.DONE
        assert pair.echo() == b"ping"
        session = pair.client.get_session()
        assert session is not None
        pair.client.shutdown()  # OpenSSL forgets the sessions of those who leave without a word
        return session


def resumed(context: TLSContext, far: SSL.Context, session: SSL.Session) -> bool | str:
    """Come in with a session: whether it was resumed, or the alert."""
    with Pair(context.pyopenssl, far) as pair:
        pair.client.set_session(session)
        if pair.finish() is not Status.DONE:
            return alert(pair)
        assert pair.echo() == b"ping"
        return pair.server.reused
