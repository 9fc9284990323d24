"""The options of applications: which there are, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tlsserver import cli
from tlsserver.cli import app_options, serve

TESTS = str(Path(__file__).parent)
APP = ("support.asgi_app:app", f"--app-dir={TESTS}")

REFUSED = {
    "several processes": ((*APP, "--workers=2"), "--workers 2 cannot be served"),
    "starting anew": ((*APP, "--reload"), "--reload is not there: install watchfiles"),
    "two places": ((*APP, "--uds=x", "--fd=3"), "--uds and --fd cannot both be listened on"),
    "a socket and a port": ((*APP, "--fd=3", "--port=1"), "--fd and --port cannot both"),
    "a number that is not kept": ((*APP, "--max-draining=3"), "--max-draining"),
    "no application": (("--interface=wsgi",), "--interface is for applications"),
    "a folder": ((TESTS, "--no-access-log"), "--access-log is for applications"),
    "another interface": ((*APP, "--interface=fcgi"), "'fcgi' is not one of"),
    "no such application": (("support.asgi_app:absent", APP[1]), "support.asgi_app has no 'absent'"),
    "no such folder": (("no/such/folder",), "directory no/such/folder cannot be served"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments, words = REFUSED[case]
    assert cli.run(["serve", *arguments]) == 2
    told = capsys.readouterr()
    assert re.fullmatch(r"tlsserver: error: [^\n]{20,600}\n", told.err), told.err
    assert words in told.err
    assert not told.out


def test_the_names_are_those_of_the_table() -> None:
    made = app_options.app_options(lambda **_: None)
    assert [parameter.name for parameter in reversed(made.__click_params__)] == app_options.NAMES  # type: ignore[attr-defined]
    assert set(app_options.NAMES) <= {parameter.name for parameter in serve.command.params}


def test_a_configuration_with_an_application_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.run(["serve", *APP, "--check-config"]) == 0
    assert capsys.readouterr().out == "the configuration can be served\n"
    assert cli.run(["serve", "support.asgi_app:no", APP[1], "--ssl-groups=none", "--check-config"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2, "both are told"
