"""What ASGI applications are told, whichever server runs them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import re
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from helpers_web import FakeTransport

from support import asgi_app
from tlsserver import ClientCertificate
from tlsserver.integrations.asgi import OfConnection, TLSExtension, cipher_suite, extension, named, wsgi
from tlsserver.policy import suites
from tlsserver.wire import TLSInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity
    from support.client_scene import House

INFO = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519", None, False, None)

# https://asgi.readthedocs.io/en/latest/specs/tls.html
KEYS = {"server_cert", "client_cert_chain", "client_cert_name", "client_cert_error", "tls_version", "cipher_suite"}


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    yield
    asgi_app.end_wsgi_threads()


def certificate(house: House) -> ClientCertificate:
    return ClientCertificate((house.good.der, house.root.x509.public_bytes(Encoding.DER)))


def transport(certificate: ClientCertificate | None = None, info: TLSInfo | None = INFO) -> FakeTransport:
    return FakeTransport(asyncio.Protocol(), tls=info, client_certificate=certificate)


def test_all_keys_without_certificates() -> None:
    assert extension(INFO) == {
        "server_cert": None,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,
    }
    assert set(extension(INFO)) == KEYS


def test_certificates_are_pem(identity: Identity, house: House) -> None:
    own = x509.load_pem_x509_certificate(identity.cert.read_bytes())
    told = extension(INFO, certificate(house), own.public_bytes(Encoding.DER))
    assert x509.load_pem_x509_certificate(told["server_cert"].encode()) == own
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in told["client_cert_chain"]]
    assert chain == [house.good.x509, house.root.x509]
    assert told["client_cert_name"] == "CN=good"


def test_a_certificate_that_cryptography_does_not_read() -> None:
    told = extension(INFO, ClientCertificate((b"strange",)))
    assert told["client_cert_name"] is None
    assert len(told["client_cert_chain"]) == 1


def test_a_version_that_cryptography_does_not_know(house: House) -> None:
    told = extension(INFO, ClientCertificate((house.good.der.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\6", 1),)))
    assert told["client_cert_name"] is None


def test_names_have_no_line_ends(house: House) -> None:
    """Applications put them into headers and logs."""
    der = house.good.der.replace(b"good", b"a\r\nb")
    assert extension(INFO, ClientCertificate((der,)))["client_cert_name"] == "CN=a\\0D\\0Ab"


@pytest.mark.parametrize(
    ("name", "number"),
    [("ECDHE-RSA-AES128-GCM-SHA256", 0xC02F), ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xCCA9), ("nonsense", None)],
)
def test_numbers_of_suites(name: str, number: int | None) -> None:
    assert cipher_suite(name) == number


def test_every_suite_of_ours_has_a_number() -> None:
    """But for those that nobody offers any more, and that Python's OpenSSL may be built without."""
    known = [*suites.known_ciphers(), *suites.known_ciphersuites()]
    ours = [name for name in known if not re.search("SEED|IDEA|RC4|DES-", name)]
    assert len(ours) > 20
    assert [name for name in ours if cipher_suite(name) is None] == []


@pytest.mark.parametrize(("version", "number"), [("TLSv1.2", 0x0303), ("TLSv1.3", 0x0304), ("DTLSv1", None)])
def test_versions(version: str, number: int | None) -> None:
    info = TLSInfo(version, "ECDHE-RSA-AES128-GCM-SHA256", None, None, False, None)
    assert extension(info)["tls_version"] == number


class Recorder:
    """An application that keeps its scopes."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.scopes.append(scope)


async def call(app: Any, scope: dict[str, Any]) -> None:
    await app(scope, None, None)


def test_of_a_connection(house: House) -> None:
    recorder = Recorder()
    client = certificate(house)
    app = OfConnection(recorder, transport(client))
    asyncio.run(call(app, {"type": "http", "extensions": {"http.response.push": {}}}))
    asyncio.run(call(app, {"type": "websocket"}))
    first, second = (scope["extensions"] for scope in recorder.scopes)
    assert set(first) == {"http.response.push", "tls", "tlsserver"}
    assert first["tlsserver"].pop("is_closing")() is False
    assert first["tlsserver"] == {"tls": INFO, "client_certificate": client}
    first["tls"]["client_cert_name"] = "CN=root"
    assert not hasattr(first["tls"]["client_cert_chain"], "append"), "it is the same for all requests"
    assert second["tls"]["client_cert_name"] == "CN=good", "one request cannot change what another is told"


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "http", "extensions": None}])
def test_nothing_is_added(scope: dict[str, Any]) -> None:
    before = dict(scope)
    recorder = Recorder()
    asyncio.run(call(OfConnection(recorder, transport(info=None)), scope))
    if scope["type"] == "lifespan":
        asyncio.run(call(OfConnection(recorder, transport()), scope))
    assert scope == before


class Server(asyncio.Protocol):
    """A server that makes the task of a connection when it is made."""

    tasks: list[Any]
    app: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        del transport
        scope = {"type": "http"}
        self.tasks.append(asyncio.get_running_loop().create_task(call(self.app, scope)))


def test_tasks_of_a_named_connection_know_it(house: House) -> None:
    recorder = Recorder()

    async def program() -> None:
        Server.tasks, Server.app = [], TLSExtension(recorder)
        factory = named(Server)
        for given in (transport(certificate(house)), transport(), transport(info=None)):
            protocol = factory()
            protocol.connection_made(given)
            assert "connection_made" not in vars(protocol), "no cycle is left"
        await asyncio.gather(*Server.tasks)
        await call(TLSExtension(recorder), {"type": "http"})

    asyncio.run(program())
    told = [scope.get("extensions", {}).get("tls", {}).get("client_cert_name", "-") for scope in recorder.scopes]
    assert told == ["CN=good", None, "-", "-"], "each connection of itself, and nobody else of any"
    assert not any("tls" in str(variable.name) for variable in contextvars.copy_context())


def test_wsgi(house: House) -> None:
    """Headers of clients cannot be taken for it: they begin with HTTP_."""
    app = OfConnection(wsgi(asgi_app.wsgi), transport(certificate(house)))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "https",
        "headers": [(b"ssl-client-s-dn", b"CN=liar"), (b"ssl_client_s_dn", b"CN=liar")],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def program() -> None:
        await app(scope, receive, send)

    asyncio.run(program())
    body = b"".join(message.get("body", b"") for message in sent)
    assert b'"SSL_CLIENT_S_DN": "CN=good"' in body
    assert b"liar" not in body
    assert ssl.PEM_HEADER.encode() in body


class Endless:
    """An answer without end."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return itertools.repeat(b"more")

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("refused", [False, True], ids=["the client leaves", "the server refuses it"])
def test_an_answer_without_end_keeps_no_thread(refused: bool) -> None:
    body, connection = Endless(), transport()

    def endless(_environ: Any, start_response: Any) -> Endless:
        start_response("200 OK", [])
        return body

    async def send(message: Any) -> None:
        if message["type"] != "http.response.body":
            return
        if refused:
            raise RuntimeError("not this")
        connection.close()

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1"}

    async def program() -> None:
        await OfConnection(wsgi(endless), connection)(scope, None, send)

    with pytest.raises(RuntimeError, match="not this") if refused else contextlib.nullcontext():
        asyncio.run(program())
    assert body.closed.is_set()


def test_a_body_that_is_cut_off_is_no_whole_one_and_a_query_may_be_of_any_bytes() -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"q=\xc3\xa9", "http_version": "1.1"}
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    asked: list[str] = []

    def reads(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        asked.append(environ["QUERY_STRING"])
        with pytest.raises(ConnectionResetError, match="the client left before the end of its request") as told:
            environ["wsgi.input"].read()
        asked.append(str(told.value))
        raise told.value

    async def receive() -> Any:
        return messages.pop(0)

    async def program() -> None:
        await wsgi(reads)(scope, receive, None)

    asyncio.run(program())  # and the server does not hear of it: nothing is wrong
    assert asked == ["q=\xc3\xa9", "the client left before the end of its request"]
