"""What a user may get wrong, through the command line of a real process, and how that process is stopped.

Invariant: a mistake is answered by one line that says what is wrong and what to do, and by exit code 2; there is no
traceback, and nothing listens.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers_web import Serving, serving

from support.clients import NAME, Target, client_hello, connect, drain, python_context
from support.running import PATIENCE

if TYPE_CHECKING:
    import http.client

    from support.certificates import Certificates, Identity

ROOT = Path(__file__).resolve().parents[1]

# What is wrong, then what to do: no line is that short without leaving one of them out.
ONE_LINE = re.compile(r"tlsserver: error: [^\n]{30,700}\n")

PASSWORD = b"correct horse"


class Files:
    """Good and bad files, by name."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        good = certificates["p256"]
        bad = {
            "garbage": b"\x00\x01\x02 no PEM",
            "empty": b"",
            "broken": good.cert.read_bytes().replace(b"MII", b"AAA"),
            "cut": good.key.read_bytes()[:100],
        }
        self.paths = {
            "cert": good.cert,
            "key": good.key,
            "other": certificates["rsa2048"].key,
            "twin": certificates.issue("twin", "p256").key,
            "encrypted": good.encrypted_key(PASSWORD),
            "missing": folder / "missing",
            "folder": folder,
        }
        for name, content in bad.items():
            self.paths[name] = folder / name
            self.paths[name].write_bytes(content)

    def fill(self, argument: str) -> str:
        """Put paths in for names in braces."""
        return argument.format(**self.paths)


@pytest.fixture(scope="module")
def files(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(certificates, tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own settings and certificates out of it."""
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


# Root may listen on any port, unless that is taken away (util-linux).
UNPRIVILEGED = ("setpriv", "--bounding-set=-net_bind_service") if os.geteuid() == 0 else ()


def serve(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is to refuse to start."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "tlsserver", "serve", "--port=0", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Fail unless it said what is wrong in one line, and nothing else."""
    assert done.returncode == 2, done
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert not done.stdout
    for word in words:
        assert word in done.stderr


CERT, KEY = "--ssl-certfile={cert}", "--ssl-keyfile={key}"

# Name: arguments, and what the line must speak of. Those about the key are made for both who may read it, the engine
# and OpenSSL.
KEY_MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "key of another kind": ([CERT, "--ssl-keyfile={other}"], ["does not belong", "certificate"]),
    "key of the same kind": ([CERT, "--ssl-keyfile={twin}"], ["does not belong", "certificate"]),
    "no password": ([CERT, "--ssl-keyfile={encrypted}"], ["encrypted", "password"]),
    "wrong password": ([CERT, "--ssl-keyfile={encrypted}", "--ssl-keyfile-password=wrong"], ["password"]),
    "key that is cut off": ([CERT, "--ssl-keyfile={cut}"], ["{cut}"]),
}

MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "missing certificate": (["--ssl-certfile={missing}", KEY], ["{missing}", "No such file"]),
    "missing key": ([CERT, "--ssl-keyfile={missing}"], ["{missing}", "No such file"]),
    "folder for a certificate": (["--ssl-certfile={folder}", KEY], ["{folder}", "directory"]),
    "folder for a key": ([CERT, "--ssl-keyfile={folder}"], ["{folder}", "directory"]),
    "certificate that is no PEM": (["--ssl-certfile={garbage}", KEY], ["{garbage}", "PEM"]),
    "certificate that is broken": (["--ssl-certfile={broken}", KEY], ["{broken}"]),
    "certificate that is empty": (["--ssl-certfile={empty}", KEY], ["{empty}", "PEM"]),
    "key that is no PEM": ([CERT, "--ssl-keyfile={garbage}"], ["{garbage}"]),
    "key that is empty": ([CERT, "--ssl-keyfile={empty}"], ["{empty}"]),
    "address of another machine": ([CERT, KEY, "--host=192.0.2.1"], ["192.0.2.1", "no such address"]),
    "host without address": ([CERT, KEY, "--host=nowhere.invalid"], ["nowhere.invalid", "no such host"]),
    "port out of range": ([CERT, KEY, "--port=70000"], ["70000", "--help"]),
    "missing site": ([CERT, KEY, "{missing}"], ["{missing}", "No such file"]),
    "unknown engine": ([CERT, KEY, "--offload=gpu"], ["gpu", "off", "threads", "latency:MS"]),
    "latency that is no number": ([CERT, KEY, "--offload=latency:soon"], ["soon", "latency:200"]),
    "negative latency": ([CERT, KEY, "--offload=latency:-5"], ["latency:-5"]),
    "no threads": ([CERT, KEY, "--offload-threads=0"], ["offload-threads"]),
}


@pytest.mark.parametrize("offload", ["off", "threads"])
@pytest.mark.parametrize("mistake", KEY_MISTAKES)
def test_mistake_with_the_key(files: Files, mistake: str, offload: str) -> None:
    arguments, words = KEY_MISTAKES[mistake]
    done = serve(f"--offload={offload}", *map(files.fill, arguments))
    check_refused(done, *map(files.fill, words))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(files: Files, mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    check_refused(serve(*map(files.fill, arguments)), *map(files.fill, words))


def test_port_in_use(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        check_refused(serve(*map(files.fill, [CERT, KEY]), f"--port={port}"), port, "in use", "another port")


def test_port_that_is_not_allowed(files: Files) -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    if first <= 1:
        pytest.skip("this machine allows every port to everybody")
    arguments = [*map(files.fill, [CERT, KEY]), "--port=1"]
    check_refused(serve(*arguments, prefix=UNPRIVILEGED), ":1:", "not allowed", "1023")


NO_LINKAGE = """\
import engine_shim.linkage
from engine_shim.linkage.refusal import Refused

def refuse(name):
    def attempt(*_):
        raise Refused(f"no {name} OpenSSL", f"install a {name} one")
    return attempt

for name in engine_shim.linkage.LINKAGES:
    engine_shim.linkage.LINKAGES[name] = refuse(name)
"""


@pytest.mark.parametrize("offload", ["off", "threads"])
def test_openssl_that_cannot_be_reached(files: Files, tmp_path: Path, offload: str) -> None:
    """Each linkage says why it was refused and what to do, and all of it is one line."""
    (tmp_path / "sitecustomize.py").write_text(NO_LINKAGE)
    done = serve(f"--offload={offload}", *map(files.fill, [CERT, KEY]), PYTHONPATH=f"{tmp_path}:{ROOT}")
    told = ("no shared OpenSSL", "install a shared one", "no static OpenSSL", "install a static one")
    check_refused(done, *told)


# Stopping.


def telling(served: Serving, word: str) -> None:
    """Wait for a line of its log."""
    assert served.process.stderr is not None
    assert any(word in line for line in served.process.stderr)


def certified(identity: Identity) -> list[str]:
    return [f"--ssl-certfile={identity.cert}", f"--ssl-keyfile={identity.key}"]


def until_served(served: Serving) -> None:
    """Wait until its loop runs, and has seen what was sent before; plain HTTP needs no key to be answered."""
    with connect(("127.0.0.1", served.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert drain(sock).startswith(b"HTTP/1.1 400 ")


def until_parked(viewer: http.client.HTTPSConnection) -> None:
    """Ask the server for its numbers until a handshake is parked: each answer takes a turn of its loop."""
    for _ in range(10_000):
        viewer.request("GET", "/statistics.json")
        if json.loads(viewer.getresponse().read())["parked_now"]:
            return
    pytest.fail("no handshake was parked")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_request_finish(identity: Identity, number: signal.Signals) -> None:
    with serving(*certified(identity)) as served:
        with contextlib.closing(served.connect(identity.ca)) as slow:
            slow.putrequest("POST", "/")
            slow.putheader("Content-Length", "4")
            slow.endheaders(b"ab")
            served.get(identity.ca)  # a round trip: the server has read what was sent before
            served.process.send_signal(number)
            telling(served, "stopping")
            with pytest.raises(ConnectionRefusedError):
                connect(("127.0.0.1", served.port))
            slow.send(b"cd")
            answer = slow.getresponse()
            assert (answer.status, answer.getheader("connection")) == (405, "close")
            assert answer.read()
        code, errors = served.wait()
        assert (code, "Traceback" in errors) == (0, False)


@pytest.mark.serial  # the signal has to come while the handshake waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_parked_handshake_finish(identity: Identity, number: signal.Signals) -> None:
    with serving(*certified(identity), "--offload=latency:300") as served:
        target = Target(served.port, identity, "1.3")
        with (
            contextlib.closing(served.connect(identity.ca)) as viewer,
            connect(target.address) as plain,
            concurrent.futures.ThreadPoolExecutor(1) as executor,
        ):
            viewer.connect()
            shaking = executor.submit(python_context(target).wrap_socket, plain, server_hostname=NAME)
            until_parked(viewer)
            served.process.send_signal(number)
            with shaking.result() as tls:
                assert tls.version() == "TLSv1.3"
                assert tls.recv(1) == b""  # close_notify: nothing had been asked for
        code, errors = served.wait()
        assert (code, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("how", ["at the deadline", "by a second signal"])
def test_a_handshake_does_not_hold_up_the_end(identity: Identity, how: str, parked: bool) -> None:
    """Neither one that waits for its client, nor one whose op the engine will not have done within this test."""
    graceful = "0.2" if how == "at the deadline" else "3600"
    slow = ["--offload=latency:3600000", "--timeout-handshake=3600", f"--timeout-graceful-shutdown={graceful}"]
    with serving(*certified(identity), *slow) as served, connect(("127.0.0.1", served.port)) as sock:
        hello = client_hello(Target(served.port, identity, "1.3"))
        sock.sendall(hello if parked else hello[:100])
        until_served(served)
        served.process.send_signal(signal.SIGTERM)
        telling(served, "stopping")
        if how == "by a second signal":
            served.process.send_signal(signal.SIGTERM)
        code, errors = served.wait()
        assert (code, "Traceback" in errors) == (0, False)
        drain(sock)
