"""`tlsserver bench`: as a process, and what it says when it cannot begin."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from helpers_bench import behaving, reset_in_the_middle

from support.running import PATIENCE, Running
from tlsserver import TLSContext, cli
from tlsserver.protocols.http1 import Response, protocol_factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity

COMMAND = [sys.executable, "-m", "tlsserver", "bench"]

# Programs rely on these; others may be added.
SCHEMA: dict[str, Any] = {
    "target": str,
    "tls": str,
    "concurrency": int,
    "seconds": float,
    "handshakes": int,
    "errors": dict,
    "resumed": int,
    "handshakes_per_second": float,
    "cipher": str,
    "group": str,
    "latency_ms": dict,
    "request": bool,
    "client_cpu_us_per_handshake": float,
}


@pytest.fixture
def server(identity: Identity) -> Iterator[Running]:
    handler = protocol_factory(lambda _: Response(body=b"hello"))
    with Running(TLSContext(identity.cert, identity.key), handler) as running:
        yield running


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def bench(port: int, *options: str, count: int = 10) -> int:
    return cli.run(["bench", f"127.0.0.1:{port}", "--count", str(count), *options])


def test_json(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server.port, "--json", "--request", "--concurrency", "3") == 0
    result = json.loads(capsys.readouterr().out)
    assert {name: type(result.get(name)) for name in SCHEMA} == SCHEMA
    assert (
        set(result["latency_ms"]) == {"mean", "p50", "p90", "p95", "p99", "p999", "max"} == set(result["response_ms"])
    )
    assert (result["target"], result["tls"], result["concurrency"]) == (f"127.0.0.1:{server.port}", "1.3", 3)
    assert (result["handshakes"], result["resumed"], result["errors"], result["request"]) == (10, 0, {}, True)
    assert sum(count for *_, count in result["histogram"]) == 10


def test_table(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server.port, "--tls", "1.2", "--resume") == 0
    shown = capsys.readouterr().out
    assert f"target       127.0.0.1:{server.port}, TLS 1.2, ECDHE-" in shown
    assert "handshakes   10, 9 of them resumed" in shown
    assert "errors       none" in shown
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["ms", "handshake"]


def test_errors_are_lines(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(closed_port) == 1
    assert "errors       10 refused: nobody listens there\n" in capsys.readouterr().out


def test_failures_are_code_1() -> None:
    with behaving(reset_in_the_middle) as port:
        assert bench(port) == 1


def test_plot(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    assert bench(server.port, "--plot", str(path)) == 0
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'HOST:PORT'"),
        (["nothing"], "target 'nothing' is not HOST:PORT: write 127.0.0.1:8443 or [::1]:8443"),
        (["192.0.2.1:443"], "target 192.0.2.1:443 is not on this machine (192.0.2.1)"),
        (["127.0.0.1:1", "--duration", "601"], "--duration 601 is too long: give at most 600 seconds"),
        (["127.0.0.1:1", "--duration", "0"], "'0' is not a number of seconds above 0"),
        (["127.0.0.1:1", "--count", "0"], "0 is not in the range"),
        (["127.0.0.1:1", "--tls", "1.1"], "'1.1' is not one of"),
        (["127.0.0.1:1", "--concurrency", "2", "--processes", "3"], "3 processes cannot share 2 connections"),
        (["127.0.0.1:1", "--resume", "--close", "reset"], "leave out --close reset"),
        (["127.0.0.1:1", "--ssl-groups", "no-such"], "key exchange groups 'no-such' cannot be used"),
        (["127.0.0.1:1", "--ssl-ca-certs", "missing.pem"], "no certificate can be read from missing.pem"),
        (["127.0.0.1:1", "--plot", "missing/x.svg"], "plot missing/x.svg cannot be written: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("tlsserver: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


# As a process.


def test_interrupted(server: Running) -> None:
    command = [*COMMAND, f"127.0.0.1:{server.port}", "--duration", "30", "--json", "--concurrency", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        server.until(lambda numbers: numbers.handshakes_completed > 0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    result = json.loads(out)
    assert (process.returncode, err, result["errors"]) == (0, "", {})
    assert result["handshakes"] > 0
    assert result["seconds"] < 30


def test_progress_on_a_terminal(server: Running) -> None:
    command = [*COMMAND, f"127.0.0.1:{server.port}", "--count", "30", "--json"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=PATIENCE)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert json.loads(out)["handshakes"] == 30
    assert "[" in shown
    assert "handshakes/s" in shown
