"""`tlsserver doctor`."""

from __future__ import annotations

import dataclasses
import json
from typing import NoReturn

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from engine_shim import LinkageError, attach
from engine_shim.batches import describe_batches
from engine_shim.linkage import Verdict
from tlsserver import cli
from tlsserver.cli import checks, doctor
from tlsserver.local_certificate import KEY_TYPES


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.run(["doctor", *arguments])
    told = capsys.readouterr()
    assert not told.err
    return code, told.out


def test_a_machine_that_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = run(capsys)
    linkage = attach()
    assert code == 0
    for told in (
        linkage.openssl_version,
        f"{linkage.name}: used",
        "pyOpenSSL",
        "EpollSelector",
        "rsa:2048, rsa:3072",
        "auto: off",
    ):
        assert told in shown
    assert shown.endswith("handshakes are offloaded\n")
    assert "a guard page" in shown


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = run(capsys, "--json")
    found = json.loads(shown)
    assert (code, found["ok"], found["async_capable"]) == (0, True, True)
    assert found["openssl"] == attach().openssl_version
    assert {verdict["linkage"]: verdict["verdict"] for verdict in found["linkages"]}[attach().name] == "used"
    assert {"rsa:2048", "ec:p256", "ec:p384", "ec:p521", "ed25519", "ed448"} <= set(found["keys"])
    assert set(found["signatures"]) == set(found["keys"])
    for numbers in found["signatures"].values():
        assert 5 < numbers["one"] < 100_000
        assert (numbers["eight"] is None) == (numbers["pays_from"] is None) or numbers["eight"] > 5
    assert found["signatures"]["ec:p256"]["auto"] == "off"
    assert found["batches"] == describe_batches()
    assert found["guarded_stacks"] == attach().guarded_stacks
    assert found["cpus"] >= 1
    assert len(found["open_files"]) == 2


def test_a_machine_that_is_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise LinkageError("no")

    verdicts = (
        Verdict("shared", "refused", "the module is linked statically", ""),
        Verdict("static", "refused", "it has no symbols", "install another"),
    )
    monkeypatch.setattr(checks, "attach", refuse)
    monkeypatch.setattr(checks, "explain", lambda: verdicts)
    code, shown = run(capsys)
    assert code == 1
    for told in ("shared: refused, the module is linked", "static: refused, it has no symbols", "-> install another"):
        assert told in shown
    assert "handshakes CANNOT be offloaded" in shown
    code, shown = run(capsys, "--json")
    found = json.loads(shown)
    assert (code, found["ok"], found["openssl"], found["keys"]) == (1, False, None, [])


FILES = "1,024 open files (at most 4,096), few for a server: `ulimit -n 4096` raises it"


@pytest.mark.parametrize(
    ("files", "maps", "guarded", "words"),
    [
        ((1024, 4096), 65530, True, FILES + "; 65,530 memory maps, for 32,765 parked handshakes at most"),
        ((1024, 4096), 65530, False, FILES),
        ((20000, -1), None, True, "20,000 open files (at most unlimited)"),
        ((-1, -1), None, True, "unlimited open files (at most unlimited)"),
    ],
)
def test_limits(files: tuple[int, int], maps: int | None, guarded: bool, words: str) -> None:
    found = dataclasses.replace(checks.look(), open_files=files, max_map_count=maps, guarded_stacks=guarded)
    assert dict(doctor._lines(found))["limits"] == words


def test_a_kind_of_key_that_openssl_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise UnsupportedAlgorithm("not here")

    monkeypatch.setitem(KEY_TYPES, "ed448", refuse)
    found = checks.look()
    assert "ed448" not in found.keys
    assert "ed25519" in found.keys
    assert dict(doctor._lines(found))["keys"] == ", ".join(found.keys)
