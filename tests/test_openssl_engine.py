"""ENGINEs of OpenSSL: an ENGINE for the tests (engine/pem_keys.c), loaded in processes of their own.

What they say when there is none runs everywhere; the rest where OpenSSL is a shared OpenSSL 3 with its headers.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from engine_shim import (
    EngineClosedError,
    EngineUnavailableError,
    KeyLoadError,
    KeyMismatchError,
    KeyPasswordError,
    OpenSSLEngine,
    ShimError,
    Status,
)
from support import apart
from support.certificates import Certificates
from support.pair import Pair, client_context, server_context
from support.shared_objects import build

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).parent / "engine" / "pem_keys.c"
SHARED = engine_shim.attach().name == "shared"
VERSION = engine_shim.attach().openssl_version

ID = "pem_keys"
PASSWORD = b"secret"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SHARED:
        pytest.skip("ENGINEs need the shared linkage")
    if not Path("/usr/include/openssl/engine.h").exists():
        pytest.skip("OpenSSL's headers (libssl-dev) are not installed")
    return build_engine(tmp_path_factory.mktemp("engine"))


def build_engine(folder: Path, *flags: str) -> Path:
    path = folder / f"{ID}.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, SOURCE, *flags, "-lcrypto"]
    subprocess.run(list(map(str, command)), check=True)
    return path


class Place:
    """A folder with keys and the ENGINE's log; what the tests tell the ENGINE is that."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.identity = Certificates(self.folder)["p256"]
        self.encrypted = self.identity.encrypted_key(PASSWORD).name
        self.key = self.identity.key.name
        self.commands: list[str | tuple[str, str | None]] = [f"LOG:{self.folder}/log", ("FOLDER", folder)]

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


# Where there are none.


@pytest.mark.skipif(SHARED, reason="ENGINEs can be used here")
@pytest.mark.parametrize("path", [None, "missing.so"])
def test_one_line_says_why_there_are_none(path: str | None) -> None:
    with pytest.raises(EngineUnavailableError) as told:
        OpenSSLEngine("dasync", path)
    assert str(told.value).startswith("engine dasync cannot be used: ")
    for word in (VERSION, "not shared", "loadable provider", "shared OpenSSL 3"):
        assert word in str(told.value)
    assert "\n" not in str(told.value)


def test_an_openssl_without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoEngines:
        openssl_engine_exists = staticmethod(lambda: 0)

    linkage = engine_shim.attach()
    monkeypatch.setattr("engine_shim.openssl_engine.lib", NoEngines)
    monkeypatch.setattr("engine_shim.linkage.attach", lambda: shared_one(linkage))
    with pytest.raises(EngineUnavailableError, match=r"OpenSSL 4\.0\.3 has no ENGINEs: use a loadable provider"):
        OpenSSLEngine("dasync")


def shared_one(linkage: engine_shim.Linkage) -> engine_shim.Linkage:
    return engine_shim.Linkage("shared", linkage.path, "OpenSSL 4.0.3", 0x40000030, guarded_stacks=True, notes=())


# Its life.


def in_use(module: str, folder: str) -> tuple[Place, OpenSSLEngine, engine_shim.Key, Any]:
    place = Place(folder)
    # The default for nothing: OpenSSL's own EC keys hold a reference to the ENGINE that is the default for them.
    engine = OpenSSLEngine(ID, module, algorithms=None, pre=place.commands, post=place.commands[:1])
    assert engine.name == "engine:pem_keys"
    assert engine.can_block
    assert place.log == ["told", "started", "told again"]
    key = engine.load_key(place.key)
    assert (key.type, key.bits, key.engine) == ("EC", 256, engine)
    assert len(key.sign(b"data")) >= 68
    context = server_context(place.identity, key)
    for version in ("1.2", "1.3"):
        with Pair(context, client_context(place.identity, version)) as pair:
            assert pair.finish() is Status.DONE
            assert pair.echo() == b"ping"
    assert place.log[3:] == ["signed"] * 3
    return place, engine, key, context


def whole_life(module: str, folder: str) -> None:
    """The keys hold the ENGINE, in whatever hands they are; the ENGINE itself would not know."""
    place, engine, key, context = in_use(module, folder)
    assert engine.close()
    assert engine.close()
    assert engine.closed
    with pytest.raises(EngineClosedError):
        engine.load_key(place.key)
    assert key.sign(b"data")
    assert "finished" not in place.log
    del key
    with Pair(context, client_context(place.identity)) as pair:
        assert pair.finish() is Status.DONE
    assert "finished" not in place.log
    del pair, context
    assert place.log[-2:] == ["signed", "finished"]
    assert engine_shim.counters().keys_alive == 0


def test_a_whole_life(module: Path, tmp_path: Path) -> None:
    apart.run(whole_life, module, tmp_path)


def found_by_id(_module: str, folder: str) -> None:
    place = Place(folder)
    with OpenSSLEngine(ID, pre=place.commands) as first:
        assert first.load_key(place.key).sign(b"data")
    # It is in OpenSSL's list from here on, and starts anew.
    with OpenSSLEngine(ID, pre=place.commands) as second:
        assert second.load_key(place.key).sign(b"data")
    assert place.log == ["told", "started", "signed", "finished"] * 2


def test_by_id(module: Path, tmp_path: Path) -> None:
    apart.run(found_by_id, module, tmp_path, variables={"OPENSSL_ENGINES": str(module.parent)})


def a_thousand_keys(module: str, folder: str) -> None:
    place = Place(folder)
    with OpenSSLEngine(ID, module, algorithms=None, pre=place.commands) as engine:
        for _ in range(1000):
            engine.load_key(place.key)
        assert engine_shim.counters().keys_alive == 0
        assert "finished" not in place.log
    assert place.log[-1] == "finished"


def test_keys_give_their_references_back(module: Path, tmp_path: Path) -> None:
    apart.run(a_thousand_keys, module, tmp_path)


# Mistakes.


def refused(kind: type[ShimError], words: str, call: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Check that a call says one line of these words."""
    with pytest.raises(kind) as told:
        call(*arguments, **named)
    assert re.search(words, str(told.value)), str(told.value)
    assert "\n" not in str(told.value)
    assert "1234" not in str(told.value)


def mistakes_with_the_engine(module: str, folder: str) -> None:
    place = Place(folder)
    none = EngineUnavailableError
    refused(
        none,
        # OpenSSL says why after the path, if that leaves it room.
        rf"^engine nonsense cannot be loaded from {folder} \(could not load the shared library: .*OPENSSL_ENGINES",
        OpenSSLEngine,
        "nonsense",
    )
    refused(none, "missing.so cannot be read: No such file", OpenSSLEngine, ID, f"{folder}/missing.so")
    refused(none, "is no shared object", OpenSSLEngine, ID, place.identity.key)
    refused(none, "gives no engine other .*check the id", OpenSSLEngine, "other", module)
    library = build(place.folder / "library.so", "int f(void) { return 1; }")
    refused(none, "does not depend on libcrypto", OpenSSLEngine, ID, library)
    source = "int RAND_status(void);\nint f(void) { return RAND_status(); }"
    library = build(place.folder / "user.so", source, "-lcrypto")
    refused(none, "gives no engine .*bind_engine", OpenSSLEngine, ID, library)
    refused(
        none, r"refuses the command 'NONSENSE' \(invalid cmd name\)", OpenSSLEngine, ID, module, pre=["NONSENSE:1234"]
    )
    refused(none, "loaded already, from /.*start a new process", OpenSSLEngine, ID, library)
    refused(none, r"refuses the command 'FOLDER' \(command takes input\)", OpenSSLEngine, ID, pre=["FOLDER"])
    refused(none, "refuses the command 'LOG2'", OpenSSLEngine, ID, pre=place.commands, post=["LOG2:x"])
    refused(none, "default for 'NONSENSE'", OpenSSLEngine, ID, algorithms="NONSENSE")
    assert place.log.count("started") == place.log.count("finished")
    refused(none, "does not start: ENGINE_init failed", OpenSSLEngine, ID, pre=["BROKEN"])


def test_mistakes_with_the_engine(module: Path, tmp_path: Path) -> None:
    apart.run(mistakes_with_the_engine, module, tmp_path, variables={"OPENSSL_ENGINES": str(tmp_path)})


def mistakes_with_the_key(module: str, folder: str) -> None:
    place = Place(folder)
    with OpenSSLEngine(ID, module, algorithms=None, pre=place.commands) as engine:
        load = engine.load_key
        refused(KeyLoadError, "gives no key 'nothing'.*check its name", load, "nothing")
        refused(KeyLoadError, r"gives no key 'pkcs11:object=x;pin-value=...'", load, "pkcs11:object=x;pin-value=1234")
        refused(KeyPasswordError, "asks for a password: give one", load, place.encrypted)
        refused(KeyPasswordError, "check its name and the password", load, place.encrypted, "wrong")
        assert load(Path(place.encrypted), PASSWORD).sign(b"data")
        assert load(place.encrypted, PASSWORD.decode()).sign(b"data")
        other = Certificates(place.folder / "..").issue("other", "p256")
        with pytest.raises(KeyMismatchError):
            server_context(other, load(place.key))
        refused(KeyLoadError, "no private key", load, b"nonsense")
        refused(KeyPasswordError, "encrypted", load, (place.folder / place.encrypted).read_bytes())


def test_mistakes_with_the_key(module: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    apart.run(mistakes_with_the_key, module, tmp_path / "keys")


def bytes_are_read_by_openssl(module: str, folder: str) -> None:
    place = Place(folder)
    with OpenSSLEngine(ID, module, algorithms=None, pre=place.commands) as engine:
        for content, password in (
            (place.identity.key.read_bytes(), None),
            ((place.folder / place.encrypted).read_bytes(), PASSWORD),
        ):
            key = engine.load_key(content, password)
            assert key.engine is engine
            assert key.sign(b"data")
        for kind in ("ed25519", "rsa2048"):
            assert engine.load_key(Certificates(place.folder)[kind].key.read_bytes()).public_der()
        assert "signed" not in place.log


def test_bytes_are_the_key(module: Path, tmp_path: Path) -> None:
    apart.run(bytes_are_read_by_openssl, module, tmp_path)


def brings_another_openssl(folder: str) -> None:
    """What a library of the ENGINE's depends on shows only when it is loaded."""
    place = Path(folder)
    with pytest.raises(EngineUnavailableError, match=r"brought a second OpenSSL, .*libcrypto.so.99.*end this process"):
        OpenSSLEngine(ID, place / f"{ID}.so")


def test_a_library_that_brings_another_openssl(module: Path, tmp_path: Path) -> None:
    assert module
    other = build(tmp_path / "libcrypto.so.99", "int other(void) { return 1; }", "-Wl,-soname,libcrypto.so.99")
    source = "int other(void);\nint between(void) { return other(); }"
    between = build(tmp_path / "libbetween.so", source, str(other), f"-Wl,-rpath,{tmp_path}")
    build_engine(tmp_path, "-Wl,--no-as-needed", str(between), f"-Wl,-rpath,{tmp_path}")
    apart.run(brings_another_openssl, tmp_path)
