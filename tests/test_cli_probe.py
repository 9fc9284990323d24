"""`tlsserver probe`: against our own server, openssl's, nginx, and what is no TLS server at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import ThreadEngine
from support.certificates import Identity
from support.chains import issue, refuse, respond
from support.running import Running
from tlsserver import TLSContext, cli
from tlsserver.protocols.http1 import Response, protocol_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.certificates import Certificates

    Probe = Callable[..., dict[str, Any]]

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.fixture
def probe(capsys: pytest.CaptureFixture[str]) -> Probe:
    """Probe a port of 127.0.0.1; give the JSON. The table has to be there too."""

    def run(port: int, *arguments: str) -> dict[str, Any]:
        assert cli.run(["probe", f"127.0.0.1:{port}", "--json", *arguments]) == 0
        told = capsys.readouterr()
        assert not told.err
        found: dict[str, Any] = json.loads(told.out)
        return found

    return run


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first handshake, for what that shows."""
    monkeypatch.setattr("tlsserver.probe.survey.MOST", 1)


def ours(identity: Identity, **options: Any) -> Running:
    handler = protocol_factory(lambda _: Response(body=b"hello"))
    return Running(TLSContext(identity.cert, identity.key, **options), handler)


@contextlib.contextmanager
def openssl(identity: Identity, *arguments: str) -> Iterator[int]:
    """Run `openssl s_server`."""
    files = ["-cert", str(identity.cert), "-key", str(identity.key)]
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", *files, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield next(int(found[1]) for found in (re.match(r"ACCEPT \S+:(\d+)", line) for line in process.stdout) if found)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Answer each connection on a thread, until its client leaves."""

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                answer(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# --- What there is to see ---


def test_our_own_server(identity: Identity, probe: Probe) -> None:
    with ours(identity, alpn=("http/1.1",)) as running:
        found = probe(running.port, "--ssl-ca-certs", str(identity.ca))
    versions = found["versions"]
    assert [versions[name]["accepted"] for name in ("1.3", "1.2", "1.1", "1.0")] == [True, True, False, False]
    assert versions["1.1"]["reason"] == versions["1.0"]["reason"] == "alert protocol_version"
    assert set(versions["1.3"]["suites"]) == {
        *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    }
    assert set(versions["1.2"]["suites"]) == {
        *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    }
    assert {"X25519", "P-256"} <= set(found["groups"])
    assert found["alpn"] == ["http/1.1"]
    assert found["verified"] == {"ok": True, "name": "127.0.0.1", "reason": None}
    assert found["resumption"]["1.3"]["tickets"] >= 1
    assert all(one["by_ticket"] for one in found["resumption"].values())
    assert found["secure_renegotiation"] is True
    assert found["ocsp"] is None
    assert found["complete"] is True
    assert 0 < found["handshake_seconds"] < 5
    assert found["connections"] < 40
    (certificate,) = found["certificates"]
    assert certificate["names"] == ["localhost", "127.0.0.1", "::1"]
    assert (certificate["subject"], certificate["issuer"]) == ("localhost", "tlsserver tests CA")
    assert (certificate["key"], certificate["signature"]) == ("EC secp256r1", "ecdsa-with-SHA256")
    assert certificate["days_left"] == 1


def test_handshakes_that_are_parked(identity: Identity, probe: Probe) -> None:
    with ThreadEngine(1) as engine:
        handler = protocol_factory(lambda _: Response(body=b"hello"))
        with Running(TLSContext(identity.cert, identity.key, engine=engine), handler) as running:
            assert probe(running.port)["versions"]["1.3"]["accepted"]
            assert running.statistics().handshakes_parked > 10


def test_restrictions_are_seen(certificates: Certificates, probe: Probe) -> None:
    with ours(certificates["rsa2048"], max_version="1.2", ciphers="ECDHE-RSA-AES128-GCM-SHA256") as running:
        found = probe(running.port)
    assert found["versions"]["1.3"] == {
        "accepted": False,
        "reason": "alert protocol_version",
        "suites": [],
        "order": None,
    }
    assert found["versions"]["1.2"]["suites"] == ["ECDHE-RSA-AES128-GCM-SHA256"]
    assert found["certificates"][0]["key"] == "RSA-2048"
    assert "P-256" in found["groups"]
    assert "1.3" not in found["resumption"]


def test_what_openssl_is_told(identity: Identity, probe: Probe) -> None:
    options = ["-serverpref", "-no_ticket", "-cipher", "ALL:@SECLEVEL=0", "-curves", "P-384:X25519", "-alpn", "h2"]
    with openssl(identity, *options) as port:
        found = probe(port, "--server-name", "localhost", "--ssl-ca-certs", str(identity.ca))
    versions = found["versions"]
    assert versions["1.2"]["order"] == "server"
    assert "ECDHE-ECDSA-AES256-SHA" in versions["1.2"]["suites"]
    assert versions["1.1"]["accepted"] in {True, None}  # None: this OpenSSL has no such version
    assert found["groups"] in (["P-384", "X25519"], ["X25519", "P-384"])
    assert found["alpn"] == ["h2"]
    assert found["server_name"] == "localhost"
    assert found["resumption"]["1.2"] == {"tickets": 0, "by_ticket": False, "by_id": True}


def test_all_suites(identity: Identity, probe: Probe) -> None:
    with openssl(identity, "-cipher", "ALL:@SECLEVEL=0", "-no_tls1", "-no_tls1_1", "-no_tls1_3") as port:
        few, all_of_them = probe(port), probe(port, "--all")
    suites = [set(found["versions"]["1.2"]["suites"]) for found in (few, all_of_them)]
    assert suites[0] < suites[1]
    assert "ECDHE-ECDSA-AES128-CCM" in suites[1]


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx(certificates: Certificates, probe: Probe, tmp_path: Path) -> None:
    with nginx(certificates["rsa2048"], tmp_path) as port:
        found = probe(port, "--ssl-ca-certs", str(certificates.ca.cert))
    assert found["versions"]["1.2"]["suites"] == ["ECDHE-RSA-AES256-GCM-SHA384"]
    assert found["versions"]["1.3"]["accepted"] is True
    assert found["alpn"] == ["h2", "http/1.1"]
    assert found["verified"]["ok"] is True
    assert found["resumption"]["1.2"] == {"tickets": 0, "by_ticket": False, "by_id": True}
    assert found["complete"] is True


@contextlib.contextmanager
def nginx(identity: Identity, folder: Path) -> Iterator[int]:
    """Run nginx, on a port that is bound here too: nobody else gets it, and only nginx listens."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
        configuration = folder / "nginx.conf"
        configuration.write_text(f"""
            daemon off; master_process off; pid {folder}/pid; error_log stderr notice;
            events {{ worker_connections 64; }}
            http {{ access_log off;
              server {{ listen 127.0.0.1:{port} ssl http2 reuseport;
                ssl_certificate {identity.cert}; ssl_certificate_key {identity.key};
                ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384;
                ssl_session_tickets off; ssl_session_cache shared:s:1m;
            }} }}""")
        process = subprocess.Popen(
            [str(NGINX), "-c", str(configuration), "-p", str(folder)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            assert any("event method" in line for line in process.stderr)  # it listens by then
            yield port
        finally:
            process.kill()
            process.communicate()


# --- Certificates that are wrong ---


def served(certificate: Path, key: Path) -> Running:
    return Running(TLSContext(certificate, key), protocol_factory(lambda _: Response(body=b"hello")))


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("days", "words"), [((-60, -1), "certificate has expired"), ((10, 20), "certificate is not yet valid")]
)
def test_times_that_are_wrong(probe: Probe, tmp_path: Path, days: tuple[int, int], words: str) -> None:
    certificate, key = issue("localhost", days=days).write(tmp_path)
    with served(certificate, key) as running:
        found = probe(running.port, "--ssl-ca-certs", str(certificate))
    assert found["verified"]["ok"] is False
    assert found["verified"]["reason"].startswith(words)


@pytest.mark.usefixtures("once")
def test_a_name_that_is_wrong(identity: Identity, probe: Probe) -> None:
    with ours(identity) as running:
        found = probe(running.port, "--server-name", "other.example", "--ssl-ca-certs", str(identity.ca))
    assert found["verified"]["name"] == "other.example"
    assert "ostname mismatch" in found["verified"]["reason"]


@pytest.mark.usefixtures("once")
def test_a_chain_that_lacks_a_certificate(probe: Probe, tmp_path: Path) -> None:
    root = issue("root", ca=True)
    between = issue("in \x1b[31mbetween", root, ca=True)
    leaf = issue("localhost", between)
    (tmp_path / "trusted").write_bytes(root.pem)
    for chain, reason in (([between], None), ([], "the chain ends before its issuer 'in \\x1b[31mbetween', which is")):
        certificate, key = leaf.write(tmp_path, *chain)
        with served(certificate, key) as running:
            found = probe(running.port, "--ssl-ca-certs", str(tmp_path / "trusted"))
        assert len(found["certificates"]) == 1 + len(chain)
        assert found["verified"]["ok"] is (reason is None)
        assert (found["verified"]["reason"] or "").startswith(reason or "")


@pytest.mark.usefixtures("once")
def test_the_table_obeys_no_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    certificate, key = issue("bad \x1b[31m\nname").write(tmp_path)
    with served(certificate, key) as running:
        assert cli.run(["probe", f"localhost:{running.port}"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "certificate    bad \\x1b[31m\\x0aname, EC secp256r1, from " in told
    assert "(59 days left), ecdsa-with-SHA256 by itself" in told
    for line in ("TLS 1.3        TLS_", "verified       NO, for localhost: self", "OCSP           no response came"):
        assert line in told


# --- Where there is nothing to see: one line, exit code 1 ---


def failure(capsys: pytest.CaptureFixture[str], port: int, *arguments: str) -> str:
    assert cli.run(["probe", f"127.0.0.1:{port}", *arguments]) == 1
    told = capsys.readouterr()
    assert not told.out
    (line,) = told.err.splitlines()
    assert line.startswith(f"tlsserver: error: 127.0.0.1:{port} cannot be probed: ")
    return line


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused: nobody listens" in failure(capsys, port)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no TLS: "),
        (lambda sock: sock.recv(1), "no TLS: "),
        (lambda _: None, "no TLS: "),
    ],
)
def test_no_tls(capsys: pytest.CaptureFixture[str], answer: Callable[[socket.socket], object], words: str) -> None:
    with listening(answer) as port:
        assert words in failure(capsys, port)


def test_a_server_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(lambda sock: sock.recv(1 << 16) and sock.recv(1)) as port:
        assert "no TLS: timeout" in failure(capsys, port, "--timeout", "0.05")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "is not HOST:PORT"),
        (["localhost:1", "--timeout=0"], "above 0"),
        (["localhost:1", "--ssl-ca-certs={missing}"], "no certificate can be read from"),
        (["localhost:1", "--server-name=" + "x" * 64 + ".example"], "is no host name"),
        (["host.invalid:443"], "has no address"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: str) -> None:
    assert cli.run(["probe", *(one.replace("{missing}", str(tmp_path / "missing")) for one in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


# --- Bounds ---


def test_connections_are_bounded(identity: Identity, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later is left out, and it is said."""
    monkeypatch.setattr("tlsserver.probe.survey.MOST", 6)
    with ours(identity) as running:
        found = probe(running.port)
        assert running.statistics().connections_accepted == found["connections"] == 6
    assert found["complete"] is False
    assert found["alpn"] == []


def test_time_is_bounded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsserver.probe.survey.LONGEST", 0.0)
    with listening(lambda sock: sock.recv(1)) as port:
        assert "the probe's bounds are reached" in failure(capsys, port)


def test_a_server_that_never_stops_talking(identity: Identity, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no notice of goodbyes, and there is always something to read."""
    monkeypatch.setattr("tlsserver.probe.survey.MOST", 3)
    monkeypatch.setattr("tlsserver.probe.client._GOODBYE", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            while True:
                tls.sendall(bytes(1 << 16))

    with listening(talk) as port:
        assert probe(port)["versions"]["1.3"]["accepted"]


# --- OCSP ---


@pytest.mark.usefixtures("once")
def test_the_response_that_comes_with_the_handshake(probe: Probe, tmp_path: Path) -> None:
    root = issue("root", ca=True)
    leaf = issue("localhost", root)
    certificate, key = leaf.write(tmp_path, root)
    (tmp_path / "staple").write_bytes(respond(leaf, root))
    context = TLSContext(certificate, key, ocsp_staple=tmp_path / "staple")
    handler = protocol_factory(lambda _: Response(body=b"hello"))
    with Running(context, handler) as running:
        found = probe(running.port)["ocsp"]
        assert (found["status"], found["reason"]) == ("good", None)
        assert found["this_update"] < found["next_update"]
        running.server.swap_context(context.replace(ocsp_staple=None))
        assert probe(running.port)["ocsp"] is None


@pytest.mark.usefixtures("once")
def test_a_response_that_cannot_be_believed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """From `openssl s_server`, which sends what it is given."""
    root = issue("root", ca=True)
    leaf = issue("localhost", root)
    identity = Identity("p256", *leaf.write(tmp_path), tmp_path)
    for response, words in (
        (respond(leaf, root, days=(-9, -1)), "  NOT USABLE: it has expired, "),
        (respond(issue("x", root), root), "  NOT USABLE: it is about another certificate"),
        (refuse(), "OCSP           try_later"),
    ):
        (tmp_path / "staple").write_bytes(response)
        with openssl(identity, "-status_file", str(tmp_path / "staple")) as port:
            assert cli.run(["probe", f"127.0.0.1:{port}"]) == 0
        assert words in capsys.readouterr().out
