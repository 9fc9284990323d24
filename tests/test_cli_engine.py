"""`tlsserver serve` with the engines of others: what it takes, what it hands on, and what it says to mistakes."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import serving
from test_openssl_engine import ID, PASSWORD, Place, build_engine

import engine_shim
from support import dasync
from tlsserver import cli
from tlsserver.cli import offload, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity

SHARED = engine_shim.attach().name == "shared"

ONE_LINE = re.compile(r"tlsserver: error: [^\n]{20,600}\n")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting leaks in from the environment."""
    for name in [name for name in os.environ if name.startswith(("TLSSERVER_", "OPENSSL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SHARED:
        pytest.skip("ENGINEs need the shared linkage")
    return build_engine(tmp_path_factory.mktemp("engine"))


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Serve, which must fail with one line."""
    assert cli.run(["serve", "--port=0", *map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert ONE_LINE.fullmatch(told.err), told.err
    assert not told.out
    return told.err


# With real ENGINEs.


def test_a_key_of_an_engine(module: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSSERVER_ENGINE_PRE", f"LOG:{place.folder}/log FOLDER:{place.folder}")
    identity = place.identity
    options = [f"--engine-post=LOG:{place.folder}/log", "--engine-algorithms=", "--ssl-keyfile-password=env:PIN"]
    monkeypatch.setenv("PIN", PASSWORD.decode())
    key = f"--keyfile=engine:{ID}:{place.encrypted}"
    with serving(f"--offload=engine:{ID}:{module}", f"--certfile={identity.cert}", key, *options) as served:
        assert served.connection(identity.ca)["engine"] == f"engine:{ID}:{module}"
        assert served.stop()[0] == 0
    assert place.log == ["told", "started", "told again", "signed", "finished"]


def test_an_engine_that_pauses(identity: Identity) -> None:
    """In the handshake, and in reads and writes."""
    arguments = [f"--offload=engine:dasync:{dasync.engine()}", "--engine-algorithms=ALL", "--async-io"]
    arguments += ["--ssl-ciphers=ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"]
    with serving(*arguments, f"--certfile={identity.cert}", f"--keyfile={identity.key}") as served:
        seen = old_suites(served, identity)
        assert seen["cipher"] == "ECDHE-ECDSA-AES128-SHA"
        assert seen["parks"] >= 2
        code, errors = served.stop()
        assert (code, errors.count("Traceback")) == (0, 0)


def old_suites(served: Any, identity: Identity) -> dict[str, Any]:
    """Ask /connection.json as a client that takes SHA-1 in TLS 1.2."""
    context = ssl.create_default_context(cafile=identity.ca)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.closing(served.connect(identity.ca)) as connection:
        connection._context = context
        connection.request("GET", "/connection.json")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


# Mistakes that need an ENGINE; the process keeps what it has loaded, so all of them are about the same file.

ENGINE_MISTAKES = {
    "unknown engine": (["--offload=engine:nonsense"], "nonsense cannot be loaded from .*: No such file"),
    "missing file": (["--offload=engine:pem_keys:{folder}/missing.so"], "missing.so cannot be read: No such file"),
    "no engine": (["--offload=engine:pem_keys:{folder}/p256.key"], "p256.key is no shared object"),
    "another id": (["--offload=engine:other:{module}"], "gives no engine other .*check the id"),
    "unknown command": (["--offload={engine}", "--engine-pre=NONSENSE:1"], "refuses the command 'NONSENSE'"),
    "unknown command after": (["--offload={engine}", "--engine-post=NONSENSE"], "refuses the command 'NONSENSE'"),
    "unknown algorithms": (["--offload={engine}", "--engine-algorithms=NONSENSE"], "default for 'NONSENSE'"),
    "wrong key": (["--offload={engine}", "--keyfile=engine:pem_keys:nothing"], "gives no key 'nothing'"),
    "no password": (["--offload={engine}", "--keyfile=engine:pem_keys:p256.encrypted.pem"], "asks for a password"),
    "wrong password": (
        ["--offload={engine}", "--keyfile=engine:pem_keys:p256.encrypted.pem", "--ssl-keyfile-password=wrong"],
        "check its name and the password",
    ),
    "missing key file": (["--offload={engine}", "--keyfile={folder}/missing"], "key .*missing cannot be read"),
    "no key": (["--offload={engine}", "--keyfile={folder}/ca.pem"], "no private key"),
}


@pytest.fixture
def in_place(place: Place) -> Iterator[Place]:
    gc.collect()  # what other tests left
    before = engine_shim.counters().keys_alive
    yield place
    assert engine_shim.counters().keys_alive == before


@pytest.mark.parametrize("mistake", ENGINE_MISTAKES)
def test_a_mistake_is_one_line(module: Path, in_place: Place, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    arguments, words = ENGINE_MISTAKES[mistake]
    known = {"folder": in_place.folder, "module": module, "engine": f"engine:{ID}:{module}"}
    defaults = [f"--certfile={in_place.identity.cert}", f"--keyfile={in_place.identity.key}"]
    commands = [f"--engine-pre=FOLDER:{in_place.folder}", f"--engine-pre=LOG:{in_place.folder}/log"]
    told = complaint(capsys, *defaults, *commands, "--engine-algorithms=", *(one.format(**known) for one in arguments))
    assert re.search(words, told), told


# Mistakes in what is written, found before OpenSSL is asked.

MISTAKES = {
    "no id": (["--offload=engine"], "write engine:ID or engine:ID:PATH"),
    "empty path": (["--offload=engine:x:"], "write engine:ID or engine:ID:PATH"),
    "no name": (["--offload=provider:"], "write provider:NAME or provider:NAME:PATH"),
    "key without the engine": (["--keyfile=engine:x:k"], "not in use: give --offload engine:x as well"),
    "key of another engine": (["--offload=engine:y", "--keyfile=engine:x:k"], "give --offload engine:x as well"),
    "key with the provider": (["--offload=provider:x", "--keyfile=engine:x:k"], "give --offload engine:x as well"),
    "key without a name": (["--offload=engine:x", "--keyfile=engine:x"], "write engine:ID:KEY"),
    "algorithms without an engine": (["--engine-algorithms=ALL"], "--engine-algorithms is for --offload engine:ID"),
    "pre without an engine": (["--engine-pre=A"], "--engine-pre is for --offload engine:ID"),
    "post with a provider": (["--engine-post=A", "--offload=provider:x"], "--engine-post is for --offload engine:ID"),
    "threads with a provider": (
        ["--offload-threads=2", "--offload=provider:x"],
        "is for --offload threads or batch or latency",
    ),
    "no algorithms": (["--engine-algorithms=", "--offload=threads"], "is for --offload engine:ID"),
    "too many jobs": (["--async-jobs=9999999999999999999999"], "async_jobs=9999999999999999999999 cannot work"),
    "too many that wait": (["--backlog=999999999999"], "backlog=999999999999 cannot work"),
    "no jobs": (["--async-jobs=0"], "--async-jobs"),
    "no draining": (["--max-draining=-1"], "--max-draining"),
    "no cipher": (["--ssl-ciphers=NONSENSE", "--offload=off"], "TLS 1.2 suites not known to this OpenSSL: NONSENSE"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_writing_is_one_line(identity: Identity, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    told = complaint(capsys, f"--certfile={identity.cert}", f"--keyfile={identity.key}", *arguments)
    assert re.search(words, told), told


@pytest.mark.skipif(SHARED, reason="ENGINEs can be used here")
def test_no_engines_here(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, f"--certfile={identity.cert}", f"--keyfile={identity.key}", "--offload=engine:dasync")
    assert "engine dasync cannot be used: " in told


def test_an_engines_key_needs_its_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --ssl-certfile" in complaint(capsys, "--offload=engine:x", "--keyfile=engine:x:k")


# What is handed on.


class StopError(engine_shim.ShimError):
    pass


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server would have been made with."""
    found: dict[str, Any] = {}

    def server(_context: object, _factory: object, **options: Any) -> None:
        found.update(options)
        raise StopError("the test goes no further")

    monkeypatch.setattr(serve, "Server", server)
    return found


@pytest.mark.parametrize(("option", "name"), [("--async-jobs", "async_jobs"), ("--max-draining", "max_draining")])
def test_what_is_not_given_is_the_servers_own(
    handed: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    complaint(capsys)
    assert name not in handed
    complaint(capsys, option, "7")
    assert handed[name] == 7
    monkeypatch.setenv(f"TLSSERVER_{name.upper()}", "8")
    complaint(capsys)
    assert handed[name] == 8


SOURCES = ["pkcs11:object=web;type=private", "file:/some/where", "{key}"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_providers_key(
    identity: Identity,
    handed: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """A URI is the provider's to read, and a path stays one."""
    asked: list[Any] = []

    class Provider(engine_shim.ThreadEngine):
        def __init__(self, name: str, path: str | None) -> None:
            super().__init__(1)
            asked.append((name, path))

        def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> engine_shim.Key:
            asked.append((source, password))
            return super().load_key(identity.key)

    monkeypatch.setattr(offload, "OpenSSLProvider", Provider)
    source = source.format(key=identity.key)
    arguments = ["--offload=provider:pkcs11:module.so", f"--keyfile={source}", "--ssl-keyfile-password=1234"]
    complaint(capsys, f"--certfile={identity.cert}", *arguments)
    assert handed
    assert asked == [("pkcs11", "module.so"), (identity.key if source == str(identity.key) else source, "1234")]


def test_a_providers_missing_file(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, f"--certfile={identity.cert}", "--offload=provider:x", "--keyfile=missing")
    assert "key missing cannot be read" in told


@pytest.mark.parametrize(("suits", "threads"), [(0, None), (1, None), (1, 0), (0, 1)])
def test_threads_of_batches(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, suits: int, threads: int | None
) -> None:
    monkeypatch.setattr(offload, "batch_threads", lambda _source, _password: suits)
    name, settings, reason = offload.resolve("batch", offload.EngineSettings(threads), str(identity.key), None)
    assert (name, settings.threads, reason) == ("batch", suits if threads is None else threads, None)
