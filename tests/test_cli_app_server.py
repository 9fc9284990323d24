"""`tlsserver serve MODULE:ATTRIBUTE`: as a process, and its server on a thread."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from helpers_web import Serving, serving

from engine_shim import LatencyEngine
from support import asgi_app
from support.leaks import wait_until
from support.loop_thread import LOOPS
from support.running import PATIENCE
from support.web_clients import NUMBERS, http_client, open_tls, websocket
from tlsserver import TLSContext, cli, local_certificate
from tlsserver.cli import serve
from tlsserver.cli.app_server import AppServer
from tlsserver.cli.applications import Application
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.certificates import Identity
    from support.client_scene import House

TESTS = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is made for localhost out of the user's home; no setting leaks in from the environment."""
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asgi_app.EVENTS.seen.clear()


def defaults(**given: Any) -> dict[str, Any]:
    """What click makes of no options."""
    with serve.command.make_context("serve", []) as context:
        return {**context.params, **given}


class OnThread:
    """A server on a thread of its own; a context manager."""

    def __init__(self, context: TLSContext, app: Any = asgi_app.app, **options: Any) -> None:
        application = Application("here:app", app, factory=False, interface="auto")
        self.server = AppServer(application, defaults(**options), context)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.code: int | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.code = self.server.serve_on(self.listening, started=self._started.set)
        self._started.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.signal()
        self.wait()

    def signal(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    def wait(self) -> int | None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.listening.close()
        return self.code


@pytest.fixture
def context(identity: Identity) -> TLSContext:
    return TLSContext(identity.cert, identity.key)


def of(identity: Identity) -> tuple[str, str]:
    return f"--certfile={identity.cert}", f"--keyfile={identity.key}"


# As a process.


def test_clients_certificates_reach_the_application_and_a_stop_waits_for_it(identity: Identity, house: House) -> None:
    clients = (f"--ssl-ca-certs={house.root.cert}", "--ssl-cert-reqs=required", "--offload=latency:20")
    with serving("support.asgi_app:app", f"--app-dir={TESTS}", *of(identity), *clients) as served:
        assert "tlsserver serves support.asgi_app:app (ASGI 3) at https://127.0.0.1:" in served.said
        for version, number in NUMBERS.items():
            with http_client(served.port, identity, version, house.good) as client:
                told = client.get("/told").json()
            assert (told["subject"], told["tls"]["tls_version"]) == ("CN=good", number)
        with pytest.raises(httpx.HTTPError), http_client(served.port, identity, "1.2") as client:
            client.get("/")
        with (
            websocket(served.port, identity, holder=house.good) as talk,
            http_client(served.port, identity, holder=house.good) as client,
            client.stream("GET", "/until-gone") as answer,
        ):
            body = answer.iter_bytes()  # which closes the connection when it is dropped
            assert next(body) == b"begun\n"
            talk.send("there")
            assert talk.recv() == "there"
            served.process.send_signal(signal.SIGTERM)
            with pytest.raises(Exception, match="1012"):
                talk.recv()
            answer.close()
        code, errors = served.wait()
    assert code == 0
    assert "Traceback" not in errors
    assert "Application shutdown complete" in errors


def test_sighup_and_a_second_signal(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(identity.key.read_bytes() + identity.cert.read_bytes())
    renewed = local_certificate.generate(["localhost"], "ec:p256")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(renewed.certificate)
    arguments = (f"--certfile={path}", "--reload-interval=3600", "--loop=asyncio", "--timeout-graceful-shutdown=3600")
    with (
        serving("support.asgi_app:app", f"--app-dir={TESTS}", *arguments) as served,
        http_client(served.port, identity) as client,
        client.stream("GET", "/until-gone") as answer,
    ):
        body = answer.iter_bytes()  # which closes the connection when it is dropped
        assert next(body) == b"begun\n"
        path.write_bytes(b"nothing of use")
        served.process.send_signal(signal.SIGHUP)
        expect(served, "reload failed, the last good certificates stay")
        path.write_bytes(renewed.key + renewed.certificate)
        served.process.send_signal(signal.SIGHUP)
        expect(served, "certificates and keys are reloaded")
        assert served.get(trusted, "/").startswith(b"hello")
        served.process.send_signal(signal.SIGTERM)
        expect(served, "Waiting for connections to close")
        served.process.send_signal(signal.SIGTERM)
        assert served.wait()[0] == 0


def test_a_third_signal_ends_what_holds_up_the_loop(identity: Identity) -> None:
    with (
        serving("support.asgi_app:app", f"--app-dir={TESTS}", *of(identity)) as served,
        open_tls(served.port, identity) as tls,
    ):
        tls.sendall(b"GET /held-up HTTP/1.1\r\nHost: x\r\n\r\n")
        assert served.process.stdout is not None
        assert served.process.stdout.readline() == "held up\n"
        wait_until(lambda: ended_by_another_signal(served))
        assert served.process.poll() == -signal.SIGTERM


def ended_by_another_signal(served: Serving) -> bool:
    """Whether it has ended; if not, it gets one more."""
    served.process.send_signal(signal.SIGTERM)
    return served.process.poll() is not None


def expect(served: Serving, words: str) -> None:
    """Read the log up to a line."""
    assert served.process.stderr is not None
    assert any(words in line for line in served.process.stderr)


def test_wsgi_on_a_unix_socket(tmp_path: Path, identity: Identity, house: House) -> None:
    path = tmp_path / "socket"
    clients = (f"--ssl-ca-certs={house.root.cert}", "--ssl-cert-reqs=optional")
    command = ("-m", "tlsserver", "serve", "support.asgi_app:wsgi", f"--uds={path}", f"--app-dir={TESTS}")
    process = subprocess.Popen(
        [sys.executable, *command, *of(identity), *clients, "--no-access-log"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"tlsserver serves support.asgi_app:wsgi (WSGI) at unix:{path}\n"
    with contextlib.suppress(StopIteration):
        while not next(process.stdout).startswith("  stop"):
            pass
    made = ssl.create_default_context(cafile=str(identity.ca))
    made.load_cert_chain(house.good.cert, house.good.key)
    transport = httpx.HTTPTransport(uds=str(path), verify=made)
    with httpx.Client(transport=transport, base_url="https://localhost", timeout=PATIENCE) as client:
        told = client.post("/", content=b"x" * 100_000, headers={"SSL-Client-S-DN": "CN=liar"}).json()
    assert (told["length"], told["HTTPS"], told["wsgi.url_scheme"]) == (100_000, "on", "https")
    assert (told["SSL_CLIENT_VERIFY"], told["SSL_CLIENT_S_DN"]) == ("SUCCESS", "CN=good")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "uvicorn.access" not in errors
    assert not path.exists()


# On a thread.


def test_a_slow_key_holds_nobody_up(identity: Identity) -> None:
    with LatencyEngine(0.2) as engine:
        context = TLSContext(identity.cert, engine.load_key(identity.key))
        with OnThread(context) as served, http_client(served.port, identity) as client:
            assert client.get("/").text == "hello"
            handshakes = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
            tunnels = [ssl_begun(raw, identity) for raw in handshakes]
            # All twenty are parked, and a request is answered.
            assert client.get("/").text == "hello"
            for tunnel in tunnels:
                tunnel.close()


def ssl_begun(raw: socket.socket, identity: Identity) -> ssl.SSLSocket:
    """Send a ClientHello, and no more."""
    made = ssl.create_default_context(cafile=str(identity.ca))
    raw.setblocking(False)
    tls = made.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls


@pytest.mark.parametrize(("app", "interface"), [(asgi_app.asgi2, "ASGI 2"), (asgi_app.wsgi, "WSGI")])
def test_other_interfaces(context: TLSContext, identity: Identity, app: Any, interface: str) -> None:
    with OnThread(context, app, loop="asyncio") as served, http_client(served.port, identity) as client:
        assert served.server.interface == interface
        assert client.get("/").status_code == 200
    assert served.code == 0
    del served, client
    asgi_app.end_wsgi_threads()


@pytest.mark.parametrize("interface", ["asgi3", "asgi2"])
def test_nobody_calls_it_without_its_arguments(context: TLSContext, interface: str) -> None:
    """uvicorn would, to see whether it is a factory."""
    called: list[Any] = []
    application = Application("here:app", lambda *given: called.append(given), factory=False, interface=interface)
    AppServer(application, defaults(), context).config.load()
    assert called == []


def test_a_reload_is_for_new_connections(context: TLSContext, identity: Identity) -> None:
    with OnThread(context) as served, http_client(served.port, identity) as client:
        before = client.get("/told").json()
        served.server.reload(lambda: TLSContext(identity.cert, identity.key, max_version="1.2"))
        assert client.get("/told").json() == before
        with http_client(served.port, identity, "1.2") as other:
            assert other.get("/told").json()["version"] == "TLSv1.2"
        with pytest.raises(httpx.HTTPError), http_client(served.port, identity, "1.3") as other:
            other.get("/")
        served.server.reload()
        assert served.server.context_files() == (identity.cert, identity.key)
        assert served.server.statistics().certificate_expires == context.expires


def test_what_does_not_end_is_ended(context: TLSContext, identity: Identity) -> None:
    with (
        OnThread(context, timeout_graceful_shutdown=0.1) as served,
        http_client(served.port, identity) as client,
        client.stream("GET", "/until-gone") as answer,
    ):
        body = answer.iter_bytes()  # which closes the connection when it is dropped
        assert next(body) == b"begun\n"
        silent = open_tls(served.port, identity)  # a connection without a request
        half = ssl_begun(socket.create_connection(("127.0.0.1", served.port)), identity)
        served.signal()
        assert served.wait() == 0
        half.close()
        silent.close()


def test_who_does_not_shake_hands_is_dropped(context: TLSContext) -> None:
    with (
        OnThread(context, timeout_handshake=0.1) as served,
        socket.create_connection(("127.0.0.1", served.port)) as raw,
    ):
        raw.settimeout(PATIENCE)
        assert raw.recv(1) == b"", "the limit of `serve` holds, not uvicorn's or asyncio's"


@pytest.mark.parametrize("loop", LOOPS)
def test_jobs_are_bounded(identity: Identity, loop: str) -> None:
    """Two handshakes have the only job one after the other."""
    with LatencyEngine(0.05) as engine:
        context = TLSContext(identity.cert, engine.load_key(identity.key))
        with OnThread(context, loop=loop, async_jobs=1) as served:
            tunnels = [ssl_begun(socket.create_connection(("127.0.0.1", served.port)), identity) for _ in range(2)]
            for tunnel in tunnels:
                tunnel.settimeout(PATIENCE)
                tunnel.do_handshake()
                tunnel.close()


OPTIONS = {
    "root_path": "/below",
    "limit_concurrency": 5,
    "proxy_headers": False,
    "lifespan": "off",
    "forwarded_allow_ips": "10.0.0.0/8",
    "timeout_keep_alive": 2.5,
    "http": "h11",
    "ws": "none",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_uvicorns(context: TLSContext, name: str) -> None:
    application = Application("here:app", asgi_app.app, factory=False, interface="auto")
    config = AppServer(application, defaults(**{name: OPTIONS[name]}), context).config
    assert getattr(config, name) == OPTIONS[name]
    assert (config.workers, config.host) == (1, "127.0.0.1"), "not what WEB_CONCURRENCY says"


def test_a_limit_of_requests(context: TLSContext, identity: Identity) -> None:
    with OnThread(context, limit_max_requests=2) as served:
        with http_client(served.port, identity) as client:
            assert [client.get("/").status_code for _ in range(2)] == [200, 200]
        assert served.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_an_application_that_does_not_start(identity: Identity, loop: str) -> None:
    arguments = ("support.asgi_app:failing", f"--app-dir={TESTS}", "--port=0", f"--loop={loop}")
    assert cli.run(["serve", *arguments, *of(identity)]) == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_a_factory(identity: Identity, loop: str) -> None:
    application = Application("here:make", asgi_app.make, factory=True, interface="auto")
    context = TLSContext(identity.cert, identity.key)
    server = AppServer(application, defaults(loop=loop), context)
    assert server.interface == "ASGI 3"


def test_a_factory_that_fails(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("support.asgi_app:not_callable", f"--app-dir={TESTS}", "--port=0", "--factory")
    assert cli.run(["serve", *arguments, *of(identity)]) == 2
    assert "support.asgi_app:not_callable" in capsys.readouterr().err


def test_a_signal_while_it_starts(context: TLSContext) -> None:
    application = Application("here:app", asgi_app.app, factory=False, interface="auto")
    server = AppServer(application, defaults(), context)
    server.handle_exit(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        server.handle_exit(signal.SIGINT, None)


@pytest.mark.parametrize(("option", "value"), [("loop", "uvloop"), ("http", "httptools"), ("ws", "wsproto")])
def test_what_is_not_installed_is_named(
    context: TLSContext, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.setitem(sys.modules, value, None)
    application = Application("here:app", asgi_app.app, factory=False, interface="auto")
    with pytest.raises(ConfigurationError, match=f"--{option} {value} needs {value}, .*`pip install {value}`"):
        AppServer(application, defaults(**{option: value}), context)


def test_without_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.run(["serve", "support.asgi_app:app"]) == 2
    told = "tlsserver: error: applications need uvicorn, which is not installed: `pip install 'tlsserver[asgi]'`\n"
    assert capsys.readouterr().err == told
