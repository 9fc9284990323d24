"""The benchmarks that compare servers: their arithmetic, and that they still run, ours only and for a moment."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import click
import pytest
from benchmarks import memory, round_trip
from benchmarks.peers import choice, configurations, install, load, machine, measure, plot, probe, processes, report
from benchmarks.peers.crowd import Crowd
from benchmarks.peers.figures import Cell, Figure, Figures, Measurement, figure, interval
from benchmarks.peers.measure import Plan, Run
from benchmarks.peers.running import running
from benchmarks.peers.servers import SERVERS, Place

from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates

BENCHMARKS = ROOT / "tests" / "benchmarks"
CELL = Cell("p256", "1.3", 64)


def measured(server: str, number: int, cost: float, handshakes: int = 1000, cell: Cell = CELL) -> Measurement:
    """A measurement in which a handshake costs so many microseconds, and everything took two seconds."""
    return Measurement(cell, server, number, handshakes, 0, 2.0, cost * handshakes / 1e6, 1.0, 0.25)


@pytest.fixture
def run() -> Run:
    """Three rounds of two servers on a machine that gets slower and slower: ours always takes half."""
    drift = (100.0, 150.0, 400.0)
    rounds = [(number, cost) for number, cost in enumerate(drift)]
    measurements = [measured("nginx", number, cost) for number, cost in rounds]
    measurements += [measured("off", number, cost / 2) for number, cost in rounds]
    return Run(measurements, {("off", "p256", "1.3"): probe.Seen("TLSv1.3", load.CIPHERSUITE, 2, 1000)})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(("nginx", "off"), ("p256",), ("1.3",), (64,), 3, 1.5, 1, 0, tmp_path)


# Arithmetic


def test_a_measurement_in_numbers() -> None:
    one = measured("off", 0, 300.0)
    assert one.cost == pytest.approx(300)
    assert one.rate == pytest.approx(500)
    assert one.server_busy == pytest.approx(0.15)
    assert one.client_busy == pytest.approx(0.5)


def test_median_and_spread() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert figure([4.0, 1.0]) == Figure(2.5, 1.0, 4.0)


def test_ratios_are_taken_in_each_round(run: Run) -> None:
    """Whatever the order in which they were measured, which is another one in every other round."""
    assert Figures(run.measurements).ratios(CELL, "off", "nginx") == pytest.approx([0.5] * 3)
    turned = sorted(run.measurements, key=lambda one: one.round if one.server == "off" else -one.round)
    assert Figures(turned).ratios(CELL, "off", "nginx") == pytest.approx([0.5] * 3)


def test_a_round_that_only_one_has_gives_no_ratio(run: Run) -> None:
    figures = Figures([*run.measurements, measured("off", 7, 1.0)])
    assert len(figures.ratios(CELL, "off", "nginx")) == 3
    assert figures.ratios(CELL, "off", "granian") == []


def test_interval_of_a_ratio() -> None:
    """By hand: logarithms -d, 0, d; mean 0, deviation d; t for 2 degrees of freedom 4.303; half = 4.303 d / sqrt 3."""
    step = 0.01
    found = interval([math.exp(-step), 1.0, math.exp(step)])
    assert found is not None
    half = 4.303 * step / math.sqrt(3)
    assert found == pytest.approx((math.exp(-half), math.exp(half)))
    assert interval([1.0]) is None
    many = interval([math.exp(-step), math.exp(step)] * 50)
    assert many is not None
    assert many[1] == pytest.approx(math.exp(1.96 * step * math.sqrt(100 / 99) / 10))


def test_how_long_a_run_takes(plan: Plan) -> None:
    """Two servers: started once for the only key, then three rounds in the only cell."""
    assert plan.duration() == pytest.approx(2 * (2.0 + 3 * (1.5 + 0.9)))


def test_rounds_alternate(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_measure", lambda _, cell, name, __, number: measured(name, number, 1.0, cell=cell))
    order = [one.server for one in measure._measurements(plan, "p256", dict.fromkeys(plan.servers))]  # type: ignore[arg-type]
    assert order == ["nginx", "off", "off", "nginx", "nginx", "off"]


# What is reported


def test_tables(run: Run, plan: Plan) -> None:
    lines = list(report.tables(run, plan))
    assert "### P-256, TLS 1.3, 64 at once" in lines
    assert "| off | 75 (50-200) | **0.50** (0.50-0.50) | **1.00** (1.00-1.00) | 500 (500-500) | 4% | 50% |" in lines
    assert list(report.circumstances(run)) == ["Busy with other work meanwhile: 0.25 cores (0.25-0.25)."]


def test_failed_connections_are_told(run: Run) -> None:
    run.measurements.append(Measurement(CELL, "h2o", 0, 10, 3, 1.0, 1.0, 1.0))
    assert any("h2o: 3 connections failed beside 10" in line for line in report.circumstances(run))


def test_json_has_all_rounds_and_the_intervals(run: Run, plan: Plan) -> None:
    told = json.loads(json.dumps(report.as_json(run, plan, {"off": "1"}, machine.about())))
    assert len(told["rounds"]) == 6
    ratio = next(one for one in told["ratios"] if (one["server"], one["to"]) == ("off", "nginx"))
    assert ratio["interval"] == pytest.approx([0.5, 0.5])
    assert told["seen"][0]["tickets"] == 2


def test_plot(run: Run) -> None:
    drawing = ET.fromstring(plot.svg(Figures(run.measurements), ["p256"], "1.3", 64))  # noqa: S314 - our own
    bars = [one for one in drawing.iter("{http://www.w3.org/2000/svg}rect") if one.get("height") == str(plot.BAR)]
    assert [bar.get("width") for bar in bars] == [f"{plot.BARS:.1f}", f"{plot.BARS / 2:.1f}"]


def test_a_block_of_a_document_is_replaced(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- x -->\nold\n<!-- end of x -->\nafter\n")
    report.put(document, "x", [r"new \1"])
    report.put(document, "x", [r"newer \1"])
    assert document.read_text() == "before\n<!-- x -->\n\nnewer \\1\n\n<!-- end of x -->\nafter\n"
    with pytest.raises(ValueError, match="has no place for y"):
        report.put(document, "y", [])


@pytest.mark.parametrize("name", ["handshakes", "round trip", "memory"])
def test_the_document_has_its_places(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "performance.md"
    copy.write_text((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), encoding="utf-8")
    report.put(copy, name, [])


# What is measured


def told(**changed: Any) -> dict[str, Any]:
    good = {"handshakes": 4, "errors": {}, "seconds": 2.0, "resumed": 0, "cipher": load.CIPHERSUITE, "group": "x25519"}
    return {**good, "client_cpu_us_per_handshake": 100.0, **changed}


def test_only_what_is_compared_is_taken() -> None:
    assert load.checked(told(), "1.3") == load.Load(4, {}, 2.0, 400e-6)
    assert load.checked(told(group=None), "1.3").handshakes == 4
    for wrong, why in (
        (told(resumed=1), "resumed"),
        (told(handshakes=0), "no handshake"),
        (told(group="X25519MLKEM768"), "group"),
        (told(cipher="TLS_AES_128_GCM_SHA256"), "cipher"),
    ):
        with pytest.raises(RuntimeError, match=why):
            load.checked(wrong, "1.3")


def test_cpu_time_is_that_of_the_process() -> None:
    before = time.process_time_ns()
    seen = processes.cpu_ns(os.getpid())
    assert before <= seen <= time.process_time_ns()


def test_the_tree_of_a_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert {os.getpid(), child.pid} <= processes.tree(os.getpid())
        assert processes.tree(child.pid) == {child.pid}
        assert child.stdin is not None
        child.stdin.close()


def test_a_server_that_does_not_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(RuntimeError, match="has ended: no such thing"):
        processes.Process(command, processes.free_port(), tmp_path, None, {})


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", False),
        (b"HTTP/1.1 200 OK\r\nContent-Len", False),
        (b"", False),
    ],
)
def test_when_a_page_is_there(answer: bytes, complete: bool) -> None:
    assert round_trip.is_complete(answer) is complete


@pytest.mark.parametrize("program", configurations.WRITERS)
def test_configurations_are_filled_in(program: str, tmp_path: Path, certificates: Certificates) -> None:
    place = Place(tmp_path, 12345, certificates["p256"], tmp_path)
    configurations.WRITERS[program](place)
    written = (tmp_path / "configuration").read_text()
    assert "12345" in written
    assert "{{" not in written


# Which servers


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert choice.chosen("off, off-echo", (), tmp_path, peers=False) == ["off", "off-echo"]
    assert choice.chosen("off,granian", (), tmp_path, peers=False) == ["off"]  # its environment is not there
    assert "left out, because they are not here: granian" in capsys.readouterr().err
    with pytest.raises(click.UsageError, match="no server is called 'apache'"):
        choice.chosen("apache", (), tmp_path, peers=False)


def test_no_service_is_started_while_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy"
    monkeypatch.setattr(install, "POLICY", policy)
    with install._no_services():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 0\n")  # the machine's own
    policy.chmod(0o755)
    with pytest.raises(click.ClickException, match="would let services start"), install._no_services():
        pytest.fail("not reached")
    assert policy.exists()


# They run


def start(*arguments: str | Path) -> str:
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_handshakes(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cell = ("--keys", "p256", "--quick", "--seconds", "0.2", "--concurrency", "4")
    start(
        BENCHMARKS / "peers", "--only", "off", *cell, "--server-core", "-1", "--client-core", "-1", "--output", output
    )
    (only,) = json.loads(output.with_suffix(".json").read_text())["rounds"]
    assert only["handshakes"] > 0
    assert not only["errors"]
    assert 10 < only["cost_us"] < 100_000
    assert output.with_suffix(".svg").exists()
    assert "### P-256, TLS 1.3, 4 at once" in output.with_suffix(".md").read_text()


def test_round_trips() -> None:
    lines = start(
        BENCHMARKS / "round_trip.py",
        "--only",
        "off-echo",
        "--rounds",
        "1",
        "--seconds",
        "0.2",
        "--key",
        "p256",
        "--json",
    )
    only = json.loads(lines)
    assert 0 < only["p50"] <= only["p99"] <= only["worst"]
    assert only["rate"] > 0


def test_the_storm_on_asyncio() -> None:
    row = "uvloop,ours,latency:200,rsa2048"
    lines = start(BENCHMARKS / "asyncio_storm.py", "--rounds", "1", "--clients", "5", "--only", row)
    total, p50, p99, worst = map(float, lines.splitlines()[-1].rpartition("rsa2048")[2].split())
    assert total >= 0.2
    assert 0 < p50 <= p99 <= worst


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")
def test_uvicorn_beside_the_standard_library() -> None:
    lines = start(BENCHMARKS / "uvicorn_cpu.py", "--rounds", "1", "--loop", "asyncio", "--share", "0.02")
    names, stdlib, ours = lines.splitlines()
    assert names.split() == ["loop,", "TLS", "handshake,", "ms", "ratio", "requests/s", "ratio", "MB/s", "ratio"]
    assert all(float(figure) > 0 for line in (stdlib, ours) for figure in line.split()[2:])


def test_memory() -> None:
    lines = start(BENCHMARKS / "memory.py", "--only", "off,parked", "--connections", "40", "--parked", "20", "--json")
    idle, parked = map(json.loads, lines.splitlines())
    assert (idle["server"], idle["state"], idle["connections"]) == ("off", "idle", 40)
    assert (parked["server"], parked["state"], parked["connections"]) == ("parked", "parked", 20)
    assert parked["proportional"] > 1024


def test_a_probe_sees_what_arrives(certificates: Certificates, tmp_path: Path) -> None:
    with running(SERVERS["off"], certificates["p256"], tmp_path) as process:
        newer, older = (probe.look(process.address, tls) for tls in ("1.3", "1.2"))
    assert (newer.version, newer.cipher, newer.tickets) == ("TLSv1.3", load.CIPHERSUITE, 2)
    assert (older.version, older.cipher) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert newer.flight > 500


def test_idle_connections_that_a_server_closes_are_no_figure(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Crowd, "alive", lambda _: 4)
    with pytest.raises(RuntimeError, match="closed 1 of 5 idle"):
        memory.idle("off", certificates["p256"], tmp_path, 5, "1.3")
