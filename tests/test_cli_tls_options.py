"""The options of TLS: what they come to, what they refuse in one line, and what clients of a server see of them."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import serving

from tlsserver import TLSContext, cli
from tlsserver.cli import serve
from tlsserver.cli.tls_options import context_options
from tlsserver.policy.settings import ContextSettings

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


def parsed(*arguments: str) -> dict[str, Any]:
    """What the arguments come to, for a context."""
    settings = dict(context_options(serve.command.make_context("serve", list(arguments)).params))
    del settings["ticket_keys"]  # made anew each time
    return settings


def test_the_defaults_are_the_settings(identity: Identity) -> None:
    settings = ContextSettings(identity.cert, identity.key)
    assert {name: getattr(settings, name) for name in parsed()} == parsed()


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--ssl-profile=modern"], "profile", "modern"),
        (["--ssl-min-version=1.3"], "min_version", "1.3"),
        (["--ssl-max-version", "1.2"], "max_version", "1.2"),
        (["--ssl-ciphers=HIGH"], "ciphers", "HIGH"),
        (["--ssl-ciphersuites=TLS_AES_128_GCM_SHA256"], "ciphersuites", "TLS_AES_128_GCM_SHA256"),
        (["--ssl-groups", "X25519:P-256"], "groups", "X25519:P-256"),
        (["--ssl-sigalgs=ed25519"], "signature_algorithms", "ed25519"),
        (["--ssl-num-tickets=0"], "num_tickets", 0),
        (["--ssl-session-lifetime=60"], "session_lifetime", 60),
        (["--ssl-session-cache=0"], "session_cache_size", 0),
        (["--ssl-keylog=keys.log"], "key_log", "keys.log"),
    ],
)
def test_each_option_is_its_setting(identity: Identity, arguments: list[str], name: str, value: object) -> None:
    assert parsed(*arguments) == parsed() | {name: value}
    if name != "key_log":
        assert TLSContext(identity.cert, identity.key, **{name: value})  # type: ignore[arg-type]


def test_the_key_log_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "everybodys.log")
    assert parsed()["key_log"] == "everybodys.log"
    assert parsed("--ssl-keylog=")["key_log"] is None
    assert parsed("--ssl-keylog=mine.log")["key_log"] == "mine.log"
    monkeypatch.setenv("TLSSERVER_SSL_KEYLOG", "ours.log")
    assert parsed()["key_log"] == "ours.log"
    monkeypatch.setenv("SSLKEYLOGFILE", "")
    monkeypatch.delenv("TLSSERVER_SSL_KEYLOG")
    assert parsed()["key_log"] is None


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--ssl-profile=old", "'old' is not one of 'intermediate', 'modern'"),
        ("--ssl-min-version=1.1", "'1.1' is not one of"),
        ("--ssl-ciphers=AES128-SAH", "TLS 1.2 suites not known to this OpenSSL: AES128-SAH; did you mean AES128-SHA"),
        ("--ssl-ciphersuites=TLS_AES_128", "TLS 1.3 suites not known"),
        ("--ssl-groups=X25519:P-257", "groups not known to this OpenSSL: P-257; did you mean P-256"),
        ("--ssl-sigalgs=rsa", "signature algorithms not known"),
        ("--ssl-sigalgs=", "no signature algorithm is named"),
        ("--ssl-num-tickets=33", "not in the range 0<=x<=32"),
        ("--ssl-session-lifetime=0", "not in the range"),
        ("--ssl-session-cache=-1", "not in the range"),
        ("--ssl-session-cache=99999999999999999999", "session_cache_size"),
        ("--ssl-keylog=/nowhere/keys.log", "key log /nowhere/keys.log cannot be opened: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(
    identity: Identity, capsys: pytest.CaptureFixture[str], argument: str, words: str
) -> None:
    arguments = ["serve", "--port=0", "--offload=off", f"--certfile={identity.cert}", f"--keyfile={identity.key}"]
    assert cli.run([*arguments, argument]) == 2
    told = capsys.readouterr()
    assert re.fullmatch(r"tlsserver: error: [^\n]+\n", told.err), told.err
    assert words in told.err
    assert not told.out


def s_client(port: int, *arguments: str) -> str:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def test_what_a_server_negotiates_and_logs(identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The OpenSSL of the machine is the client."""
    log, theirs = tmp_path / "keys.log", tmp_path / "client.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    monkeypatch.setenv("TLSSERVER_SSL_PROFILE", "modern")
    options = ("--ssl-groups=P-384", "--ssl-ciphersuites=TLS_CHACHA20_POLY1305_SHA256", "--ssl-session-lifetime=60")
    with serving("--certfile", str(identity.cert), "--keyfile", str(identity.key), *options) as served:
        monkeypatch.delenv("SSLKEYLOGFILE")
        seen = s_client(served.port, "-keylogfile", str(theirs), "-CAfile", str(identity.ca))
        assert "Verification: OK" in seen
        assert re.search("Server Temp Key: ECDH, .*384|Negotiated TLS1.3 group: secp384r1", seen), seen
        assert "Cipher is TLS_CHACHA20_POLY1305_SHA256" in seen
        assert re.search("handshake failure|protocol version", s_client(served.port, "-tls1_2"))
        code, errors = served.stop()
    assert code == 0
    assert f"THE SECRETS OF ALL CONNECTIONS ARE WRITTEN TO {log}" in errors
    lines = [line for line in theirs.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert set(lines) <= set(log.read_text().splitlines())
