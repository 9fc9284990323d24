"""No Python frame stands on a job's stack: all that pyOpenSSL would call Python for, in handshakes that pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import House, client_context
from OpenSSL import SSL

from engine_shim import ManualEngine, TicketKeys, job_is_current
from support.client_authority import Authority
from tlsserver import Certificate, ClientCertificates, Server, TLSContext
from tlsserver.asking import refuse_job_stack
from tlsserver.context import _PYTHON_CALLBACKS
from tlsserver.errors import LocalTLSError

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from tlsserver import ClientCertificateRequest, ClientHelloRequest

pytestmark = pytest.mark.usefixtures("nothing_left")


class Watched(asyncio.Protocol):
    """Notes for each call whether it was made on a job's stack."""

    def __init__(self, seen: list[tuple[str, bool]]) -> None:
        self.seen = seen

    def note(self, what: str) -> None:
        self.seen.append((what, job_is_current()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.note("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.note("data")
        self.transport.write(data.upper())  # type: ignore[attr-defined]

    def eof_received(self) -> None:
        self.note("eof")

    def connection_lost(self, _error: BaseException | None) -> None:
        self.note("lost")


def everything(
    identity: Identity,
    other: Certificate,
    engine: ManualEngine,
    *,
    folder: Path,
    clients: Path,
    seen: list[tuple[str, bool]],
) -> TLSContext:
    def on_client_hello(request: ClientHelloRequest) -> None:
        seen.append(("hello", job_is_current()))
        request.complete(None)

    def on_verified(request: ClientCertificateRequest) -> None:
        seen.append(("verified", job_is_current()))
        request.accept()

    return TLSContext(
        identity.cert,
        identity.key,
        engine=engine,
        alpn=("http/1.1",),
        certificates=[other],
        on_client_hello=on_client_hello,
        client_certificates=ClientCertificates(ca_certs=clients, on_verified=on_verified),
        ticket_keys=TicketKeys(),
        key_log=folder / "keys.log",
    )


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_everything_at_once(certificates: Certificates, tmp_path: Path, version: str) -> None:
    """Every part of the policy, a handshake that asks twice and pauses in an engine, and data after it."""
    seen: list[tuple[str, bool]] = []
    authority = Authority(tmp_path, "clients")
    holder = authority.issue("alice")
    identity = certificates["p256"]
    named = certificates.for_names("stack", "rsa2048", "stack.test")
    with ManualEngine() as engine, House(identity) as house:
        house.service.close()
        context = everything(
            identity, Certificate(named.cert, named.key), engine, folder=tmp_path, clients=authority.cert, seen=seen
        )
        house.server = Server(context, lambda: Watched(seen), port=0)
        house.server.listen()
        assert house.server._service is not None
        house.service, house.reactor = house.server._service, house.server._service.reactor
        house.client_context = client_context(identity.ca, version)
        house.client_context.load_cert_chain(holder.cert, holder.key)
        house.client_context.set_alpn_protocols(["http/1.1"])
        client = house.client()
        house.finish(engine)
        client.send(b"ping")
        house.until(lambda: client.received == b"PING")
        client.say_goodbye()
        house.until(house.is_empty)
    assert not any(is_on_a_stack for _, is_on_a_stack in seen)
    assert [what for what, _ in seen] == ["hello", "verified", "made", "data", "eof", "lost"]
    assert house.statistics.handshakes_parked == 1
    assert (tmp_path / "keys.log").read_text().count("\n") == {"1.2": 1, "1.3": 5}[version]


@pytest.mark.parametrize("callback", sorted(_PYTHON_CALLBACKS))
def test_a_context_with_a_callback_of_python_is_refused(identity: Identity, callback: str) -> None:
    """Each of pyOpenSSL's: they would run on the stack of a paused handshake."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(identity.cert))
    context.use_privatekey_file(str(identity.key))

    def asked(*_: Any) -> Any:
        raise AssertionError("it ran")

    setattr(context, callback, asked)
    with pytest.raises(ValueError, match="would run on a job's stack"):
        TLSContext.from_pyopenssl(context)


def test_a_question_on_a_jobs_stack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_job_stack()
    monkeypatch.setattr("engine_shim.job_is_current", lambda: True)
    with pytest.raises(LocalTLSError, match="on a job's stack"):
        refuse_job_stack()
