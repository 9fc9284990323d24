"""`tlsserver serve`: as a process that clients talk to, and what it says when it cannot serve."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from helpers_web import serving

from engine_shim import LinkageError
from support.chains import issue
from tlsserver import cli, local_certificate
from tlsserver.cli import offload

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "pass phrase"  # noqa: S105 - of a key made here


class Files:
    """A certificate and its key, in the forms that users have."""

    def __init__(self, folder: Path) -> None:
        made = local_certificate.generate(["localhost", "127.0.0.1"])
        key = load_pem_private_key(made.key, None)
        encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode()))
        contents = {
            "certificate": made.certificate,
            "key": made.key,
            "both": made.key + made.certificate,
            "encrypted": encrypted,
            "other-key": local_certificate.generate(["x"]).key,
            "garbage": b"\x30\x82garbage",
            "password": PASSWORD.encode() + b"\nsecond line",
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        self.folder = folder

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def fill(self, argument: str) -> str:
        """Put the path in for a name in braces."""
        return re.sub(r"\{([a-z-]+)\}", lambda match: self[match[1]], argument)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is made for localhost out of the user's home; no setting leaks in from the environment."""
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tlsserver"


# Serving.


def test_the_demo_site_with_a_certificate_that_it_makes(state: Path) -> None:
    with serving() as served:
        certificate = state / "localhost.crt"
        page = served.get(certificate)
        assert "Your connection" in page.decode()
        fingerprint = local_certificate.fingerprint(certificate.read_bytes())
        for told in (
            f"https://127.0.0.1:{served.port}/",
            fingerprint,
            "engine       off (auto: EC signs in ",
            "linkage      ",
            "OpenSSL ",
        ):
            assert told in served.said
        code, errors = served.stop()
        assert code == 0
        assert "Traceback" not in errors


@pytest.mark.parametrize(("engine", "least"), [("off", None), ("threads", 0.0), ("batch", 0.0), ("latency:50", 0.05)])
def test_engines(given: Files, engine: str, least: float | None) -> None:
    with serving("--certfile", given["certificate"], "--keyfile", given["key"], "--offload", engine) as served:
        seen = served.connection(given["certificate"])
        assert seen["engine"] == engine
        assert seen["alpn"] in {None, "http/1.1"}
        if least is None:
            assert seen["parks"] == 0
        else:
            assert seen["parks"] >= 1
            assert seen["park_seconds"] >= least
        statistics = json.loads(served.get(given["certificate"], "/statistics.json"))
        assert statistics["handshakes_completed"] == 2
        assert statistics["handshakes_parked"] == (0 if least is None else 2)


def test_batches_by_turns_of_the_loop(given: Files) -> None:
    arguments = (
        "--certfile",
        given["certificate"],
        "--keyfile",
        given["key"],
        "--offload=batch",
        "--offload-threads=0",
    )
    with serving(*arguments) as served:
        seen = served.connection(given["certificate"])
        assert (seen["engine"], seen["parks"]) == ("batch", 0), "alone it has no batch to wait for"
        statistics = json.loads(served.get(given["certificate"], "/statistics.json"))
        assert statistics["ops_performed"] == statistics["handshakes_completed"] == 2


def test_what_auto_chooses_depends_on_the_key(tmp_path: Path) -> None:
    made = local_certificate.generate(["localhost", "127.0.0.1"], "rsa:4096")
    path = tmp_path / "rsa.pem"
    path.write_bytes(made.key + made.certificate)
    with serving("--certfile", str(path)) as served:
        assert re.search(r"engine       (batch|threads) \(auto: RSA-4096 signs in [0-9,]+ us, ", served.said)
        assert served.connection(path)["parks"] == 1


def test_the_files_of_a_directory(given: Files, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    with serving(str(tmp_path), "--ssl-certfile", given["both"]) as served:
        assert served.get(given["certificate"], "/large") == (tmp_path / "large").read_bytes()
        assert b"./large" in served.get(given["certificate"])
        assert str(tmp_path) in served.said
        assert served.stop(signal.SIGINT)[0] == 0


@pytest.mark.parametrize("offload", ["off", "threads"])
@pytest.mark.parametrize("source", [PASSWORD, "pass:" + PASSWORD, "env:SECRET", "file:{password}"])
def test_passwords(given: Files, monkeypatch: pytest.MonkeyPatch, source: str, offload: str) -> None:
    monkeypatch.setenv("SECRET", PASSWORD)
    source = given.fill(source)
    monkeypatch.setenv("TLSSERVER_SSL_KEYFILE_PASSWORD", source)
    monkeypatch.setenv("TLSSERVER_SSL_CERTFILE", given["certificate"])
    monkeypatch.setenv("TLSSERVER_OFFLOAD", offload)
    with serving("--keyfile", given["encrypted"]) as served:
        assert served.connection(given["certificate"])["engine"] == offload


def test_a_stop_ends_the_live_counters_and_lets_a_request_finish(given: Files) -> None:
    with serving("--certfile", given["both"]) as served, contextlib.ExitStack() as stack:
        viewer = stack.enter_context(contextlib.closing(served.connect(given["certificate"])))
        viewer.request("GET", "/events")
        events = viewer.getresponse()
        assert events.readline() == b"event: history\n"
        slow = stack.enter_context(contextlib.closing(served.connect(given["certificate"])))
        slow.putrequest("POST", "/")
        slow.putheader("Content-Length", "2")
        slow.endheaders(b"a")
        served.get(given["certificate"])  # a round trip: the server has read what was sent before
        served.process.send_signal(signal.SIGTERM)
        while events.readline():
            pass
        slow.send(b"b")
        answer = slow.getresponse()
        assert (answer.status, answer.getheader("connection")) == (405, "close")
        assert answer.read()
        stack.close()  # our side of the goodbye
        assert served.wait()[0] == 0


def test_sighup_reloads_the_certificate(tmp_path: Path) -> None:
    first, second = (local_certificate.generate(["localhost"], "ec:p256") for _ in range(2))
    path, trusted = tmp_path / "both.pem", tmp_path / "trusted.pem"
    path.write_bytes(first.key + first.certificate)
    trusted.write_bytes(second.certificate)
    with serving("--certfile", str(path), "--reload-interval=3600") as served:
        path.write_bytes(b"nothing of use")
        served.process.send_signal(signal.SIGHUP)
        assert served.process.stderr is not None
        assert any("reload failed, the last good certificates stay: certif" in line for line in served.process.stderr)
        old = issue("localhost", days=(-60, -1))
        path.write_bytes(old.key_pem + old.pem)
        served.process.send_signal(signal.SIGHUP)
        assert any("certificates stay: certificate" in line and "expired" in line for line in served.process.stderr)
        path.write_bytes(second.key + second.certificate)
        served.process.send_signal(signal.SIGHUP)
        assert any("certificates and keys are reloaded" in line for line in served.process.stderr)
        assert served.get(trusted)
        assert served.stop(signal.SIGTERM)[0] == 0


def test_a_second_signal_stops_at_once(given: Files) -> None:
    with serving("--certfile", given["both"], "--timeout-graceful-shutdown=3600") as served:
        slow = served.connect(given["certificate"])
        slow.putrequest("GET", "/")
        slow.endheaders()
        assert slow.getresponse().read()
        slow.putrequest("GET", "/")
        assert slow.sock is not None
        slow.sock.sendall(b"GET / HT")
        served.get(given["certificate"])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.stderr is not None
        assert any("stopping" in line for line in served.process.stderr)
        served.process.send_signal(signal.SIGTERM)
        assert served.wait()[0] == 0
        slow.close()


# What cannot be served: one line, exit code 2.

ONE_LINE = re.compile(r"tlsserver: error: [^\n]{20,600}\n")

KEY_MISTAKES = {
    "missing certificate": (["--certfile={missing}"], "certificate .* cannot be read: No such file"),
    "missing key": (["--certfile={certificate}", "--keyfile={missing}"], "key .* cannot be read: No such file"),
    "a URI for no provider": (["--certfile={certificate}", "--keyfile=pkcs11:token=x"], "give --offload provider:NAME"),
    "a folder for a certificate": (["--certfile=."], "cannot be read: Is a directory"),
    "key without certificate": (["--keyfile={key}"], "give --ssl-certfile"),
    "no PEM": (["--certfile={garbage}", "--keyfile={key}"], "PEM"),
    "no key": (["--certfile={certificate}", "--keyfile={garbage}"], "key"),
    "certificate without key": (["--certfile={certificate}"], "key"),
    "key without its certificate": (["--certfile={key}"], "certificate"),
    "another key": (["--certfile={certificate}", "--keyfile={other-key}"], "does not belong"),
    "no password": (["--certfile={certificate}", "--keyfile={encrypted}"], "(?i)password"),
    "wrong password": (
        ["--certfile={certificate}", "--keyfile={encrypted}", "--ssl-keyfile-password=wrong"],
        "(?i)password",
    ),
    "unset variable": (["--certfile={both}", "--ssl-keyfile-password=env:UNSET"], "environment variable UNSET"),
    "missing password file": (["--certfile={both}", "--ssl-keyfile-password=file:{missing}"], "password file"),
}

MISTAKES = {
    "no such directory": (["{missing}"], "directory .* No such file"),
    "a file for a directory": (["{key}"], "directory .* Not a directory"),
    "unknown engine": (
        ["--offload=gpu"],
        re.escape("'gpu' is unknown: choose one of auto|off|threads|batch|latency:MS"),
    ),
    "latency without number": (["--offload=latency"], "write latency:200"),
    "latency of nonsense": (["--offload=latency:fast"], "write latency:200"),
    "negative latency": (["--offload=latency:-1"], "latency:-1"),
    "endless latency": (["--offload=latency:inf"], "latency:inf"),
    "off with an argument": (["--offload=off:1"], "nothing behind a colon"),
    "too many threads": (["--offload-threads=100000"], "threads"),
    "no port": (["--port=99999"], "99999.*see `tlsserver serve --help`"),
    "no host": (["--host=host.invalid"], "host.invalid"),
    "no time": (["--timeout-handshake=0"], "above 0"),
    "time of nonsense": (["--timeout-keep-alive=nan"], "above 0"),
    "unknown option": (["--prot=1"], "--prot"),
    "too many directories": ([".", "."], "unexpected extra argument"),
}


def assert_one_line(capsys: pytest.CaptureFixture[str], words: str) -> None:
    told = capsys.readouterr()
    assert ONE_LINE.fullmatch(told.err), told.err
    assert re.search(words, told.err), told.err
    assert not told.out


@pytest.mark.parametrize("offload", ["threads", "off"])
@pytest.mark.parametrize("mistake", KEY_MISTAKES)
def test_a_mistake_with_the_key_is_one_line(
    given: Files, capsys: pytest.CaptureFixture[str], mistake: str, offload: str
) -> None:
    arguments, words = KEY_MISTAKES[mistake]
    arguments = [given.fill(argument) for argument in arguments]
    assert cli.run(["serve", "--port=0", f"--offload={offload}", *arguments]) == 2
    assert_one_line(capsys, words)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(given: Files, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    certificate = f"--certfile={given['both']}"
    assert cli.run(["serve", "--port=0", certificate, *(given.fill(argument) for argument in arguments)]) == 2
    assert_one_line(capsys, words)


def test_a_port_in_use(given: Files, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["serve", f"--port={port}", f"--certfile={given['both']}"]) == 2
    assert_one_line(capsys, str(port))


def test_an_openssl_that_cannot_be_reached(
    given: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise LinkageError("no linkage can be used:\nshared: this\nstatic: that")

    monkeypatch.setattr(offload, "ThreadEngine", refuse)
    assert cli.run(["serve", f"--certfile={given['both']}", "--offload=threads"]) == 2
    assert capsys.readouterr().err == "tlsserver: error: no linkage can be used: shared: this static: that\n"


def test_a_state_folder_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert cli.run(["serve"]) == 2
    assert_one_line(capsys, "XDG_STATE_HOME")


def test_a_mistake_in_the_environment_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLSSERVER_PORT", "many")
    assert cli.run(["serve"]) == 2
    assert "'--port'" in capsys.readouterr().err


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("serve", "doctor", "gen-cert"))
    assert cli.run(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert cli.run(["serve", "--help"]) == 0
    assert "TLSSERVER_PORT" in capsys.readouterr().out


# Checking a configuration.


@pytest.fixture
def expired(tmp_path: Path) -> tuple[str, str]:
    certificate, key = issue("localhost", days=(-60, -1)).write(tmp_path)
    return str(certificate), str(key)


@pytest.mark.parametrize("arguments", [[], ["--check-config"]])
def test_all_problems_are_told_at_once(
    expired: tuple[str, str], given: Files, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    files = [f"--certfile={expired[0]}", f"--keyfile={given['missing']}", "--ssl-keyfile-password=env:UNSET"]
    wrong = ["--ssl-ciphers=nonsense", given["missing"]]
    assert cli.run(["serve", "--port=0", *files, *wrong, *arguments]) == 2
    told = capsys.readouterr()
    assert not told.out
    lines = [line.removeprefix("tlsserver: error: ") for line in told.err.splitlines()]
    assert len(lines) == 5
    for words in ("directory ", "key ", "no password in ", "TLS 1.2 suites not ", f"certificate {expired[0]} has "):
        assert sum(line.startswith(words) for line in lines) == 1, words


@pytest.mark.parametrize("arguments", [[], ["--check-config"]])
@pytest.mark.parametrize("offload", ["off", "threads"])
def test_an_expired_certificate_is_not_served(
    expired: tuple[str, str], capsys: pytest.CaptureFixture[str], offload: str, arguments: list[str]
) -> None:
    files = [f"--certfile={expired[0]}", f"--keyfile={expired[1]}"]
    assert cli.run(["serve", "--port=0", f"--offload={offload}", *files, *arguments]) == 2
    assert_one_line(capsys, r"has expired, \d{4}-\d\d-\d\d \d\d:\d\d UTC: renew it")


def test_a_configuration_that_can_be_served(given: Files, capsys: pytest.CaptureFixture[str]) -> None:
    (given.folder / "both").chmod(0o600)
    assert cli.run(["serve", "--check-config", f"--certfile={given['both']}"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("the configuration can be served\n", "")
    (given.folder / "both").chmod(0o644)
    assert cli.run(["serve", "--check-config", f"--certfile={given['both']}", "--host=www.example"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"tlsserver: warning: certificate {given['both']} is not for www.example, but for ")
    assert lines[1].startswith(f"tlsserver: warning: private key {given['both']} can be read or written by every user")
    assert cli.run(["serve", "--check-config"]) == 0


def test_warnings_go_to_the_log(given: Files) -> None:
    (given.folder / "both").chmod(0o644)
    with serving("--certfile", given["both"]) as served:
        code, errors = served.stop()
    assert code == 0
    assert f"WARNING tlsserver.cli.serve: private key {given['both']} can be read" in errors
