"""Loadable providers: found, refused, opened once, and asked for keys. The scripted one stands for all of them."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import (
    EngineClosedError,
    EngineUnavailableError,
    KeyLoadError,
    KeyPasswordError,
    OpenSSLProvider,
    ShimError,
    Status,
    provider_module,
)
from engine_shim.linkage.elf import Elf
from support import shared_objects
from support.pair import Pair, client_context, server_context
from tlsserver.testing import HELD, ScriptedProvider
from tlsserver.testing.control import module_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity

LINKAGE = engine_shim.attach().name
on_shared = pytest.mark.skipif(LINKAGE != "shared", reason="the linkage is static: there is no libcrypto to share")
on_static = pytest.mark.skipif(LINKAGE != "static", reason="the linkage is shared: a module may need libcrypto")


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield made


@pytest.fixture
def engine(scripted: ScriptedProvider) -> OpenSSLProvider:
    return scripted.engine


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["rsa2048"]


def message(error: pytest.ExceptionInfo[ShimError]) -> str:
    """Give the error's text, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


# Keys


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_key_by_uri(engine: OpenSSLProvider, certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    key = engine.load_key(f"scripted:{identity.key}")
    assert key.engine is engine
    with engine_shim.ThreadEngine() as threads:
        assert key.public_der() == threads.load_key(identity.key).public_der()
    assert len(key.sign(b"document")) > 60


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
@pytest.mark.parametrize("form", [str, Path, lambda path: f"file:{path}"])
def test_key_of_a_file_is_taken_over(
    engine: OpenSSLProvider, certificates: Certificates, kind: str, form: type
) -> None:
    """OpenSSL's own decoder reads it, and the provider holds it: or its operations would not be the provider's."""
    key = engine.load_key(form(certificates[kind].key))
    assert key.type == {"rsa2048": "RSA", "p256": "EC"}[kind]


def test_operations_are_the_providers(scripted: ScriptedProvider, identity: Identity) -> None:
    before = scripted.counts().completed
    for key in (scripted.engine.load_key(identity.key), scripted.load_key(identity.key)):
        key.sign(b"document", padding="pss")
    assert scripted.counts().completed == before + 2


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_handshake(scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    scripted.script(HELD)
    key = scripted.load_key(identity.key)
    with Pair(server_context(identity, key), client_context(identity, version)) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        scripted.complete()
        assert pair.finish() is Status.DONE
        assert pair.echo() == b"ping"


def test_key_outlives_its_engine(scripted: ScriptedProvider, identity: Identity) -> None:
    key = OpenSSLProvider("scripted", module_path()).load_key(f"scripted:{identity.key}")
    gc.collect()
    assert key.sign(b"document")
    assert key.engine.name == scripted.engine.name == "provider:scripted"


def test_password(engine: OpenSSLProvider, identity: Identity) -> None:
    path = identity.encrypted_key(b"secret")
    for source in (path, f"scripted:{path}"):
        assert engine.load_key(source, "secret").bits == 2048
        for wrong in (None, b"wrong"):
            with pytest.raises(KeyPasswordError, match="its password is missing or wrong") as caught:
                engine.load_key(source, wrong)
            assert str(path) in message(caught)


def test_key_that_another_provider_holds(engine: OpenSSLProvider, certificates: Certificates) -> None:
    """It would silently not be offloaded."""
    with pytest.raises(KeyLoadError, match="the provider default holds it, not scripted") as caught:
        engine.load_key(certificates["ed25519"].key)
    assert "give the URI" in message(caught)


def test_no_key(engine: OpenSSLProvider, identity: Identity, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for source, reason in (
        (f"scripted:{tmp_path}/none", "no such file"),
        ("nonsense:object=1", "No store loader found"),
        (identity.cert, "no private key"),
        (tmp_path / "empty", "has none there"),
    ):
        with pytest.raises(KeyLoadError, match=reason) as caught:
            engine.load_key(source)
        assert "check the URI" in message(caught)


def test_no_file(engine: OpenSSLProvider, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        engine.load_key(tmp_path / "none")


def test_bytes_are_refused(engine: OpenSSLProvider, identity: Identity) -> None:
    with pytest.raises(KeyLoadError, match="give a path or a URI"):
        engine.load_key(identity.key.read_bytes())


def test_pin_in_the_uri_stays_out_of_the_message(engine: OpenSSLProvider) -> None:
    with pytest.raises(KeyLoadError) as caught:
        engine.load_key("pkcs11:object=web?pin-value=123456&x=y")
    assert "pin-value=...&x=y" in message(caught)
    assert "123456" not in message(caught)


def test_closed(identity: Identity, engine: OpenSSLProvider) -> None:
    with OpenSSLProvider("scripted", module_path()) as other:
        key = other.load_key(identity.key)
    assert other.closed
    with pytest.raises(EngineClosedError):
        other.load_key(identity.key)
    assert key.sign(b"it goes on")
    assert not engine.closed


def test_statistics_and_blocking(engine: OpenSSLProvider) -> None:
    assert engine.statistics().performed == 0
    assert engine.can_block
    assert repr(engine).startswith("<OpenSSLProvider scripted from ")


def test_opened_a_hundred_times_nothing_adds_up(scripted: ScriptedProvider, identity: Identity) -> None:
    homes = {id(OpenSSLProvider("scripted", module_path())._home) for _ in range(100)}
    assert homes == {id(scripted.engine._home)}
    gc.collect()
    alive = engine_shim.counters().keys_alive
    for _ in range(10):
        scripted.engine.load_key(identity.key)
    gc.collect()
    assert engine_shim.counters().keys_alive == alive


# What cannot be had


def test_not_a_name() -> None:
    for name in ("", "a/b", "../x", "a,b"):
        with pytest.raises(EngineUnavailableError, match="no provider's name") as caught:
            OpenSSLProvider(name)
        message(caught)


def test_no_module(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="cannot be read") as caught:
        OpenSSLProvider("none", tmp_path / "none.so")
    assert str(tmp_path / "none.so") in message(caught)


def test_not_a_shared_object() -> None:
    with pytest.raises(EngineUnavailableError, match="is no shared object") as caught:
        OpenSSLProvider("text", __file__)
    message(caught)


def test_not_a_provider(tmp_path: Path) -> None:
    path = shared_objects.build(tmp_path / "plain.so", "int something(void) { return 1; }")
    with pytest.raises(EngineUnavailableError, match="has no OSSL_provider_init") as caught:
        OpenSSLProvider("plain", path)
    message(caught)


def test_a_module_that_cannot_be_loaded(tmp_path: Path) -> None:
    source = "extern int nowhere_at_all(void);\nint OSSL_provider_init(void) { return nowhere_at_all(); }"
    path = shared_objects.build(tmp_path / "unresolved.so", source)
    with pytest.raises(EngineUnavailableError, match="nowhere_at_all") as caught:
        OpenSSLProvider("unresolved", path)
    message(caught)


def test_a_provider_that_refuses(tmp_path: Path) -> None:
    path = shared_objects.build(tmp_path / "refuses.so", "int OSSL_provider_init(void) { return 0; }")
    for _ in range(3):  # nothing of it is kept
        with pytest.raises(EngineUnavailableError, match="OpenSSL cannot load it") as caught:
            OpenSSLProvider("refuses", path)
        assert "config=" in message(caught)


def needing(folder: Path, soname: str) -> Path:
    """Build a provider that needs a libcrypto of some name."""
    library = shared_objects.build(folder / soname, "int CRYPTO_something(void) { return 1; }", f"-Wl,-soname,{soname}")
    source = "extern int CRYPTO_something(void);\nint OSSL_provider_init(void) { return CRYPTO_something(); }"
    return shared_objects.build(folder / "needing.so", source, str(library), f"-Wl,-rpath,{folder}")


def test_a_second_openssl_is_not_loaded(tmp_path: Path) -> None:
    path = needing(tmp_path, "libcrypto.so.99")
    with pytest.raises(EngineUnavailableError, match=r"needs libcrypto\.so\.99") as caught:
        OpenSSLProvider("needing", path)
    message(caught)
    assert "libcrypto.so.99" not in Path("/proc/self/maps").read_text()


def test_a_second_openssl_is_noticed_where_another_library_brings_it(tmp_path: Path) -> None:
    inner = shared_objects.build(
        tmp_path / "libcrypto.so.98", "int CRYPTO_it(void) { return 1; }", "-Wl,-soname,libcrypto.so.98"
    )
    between = shared_objects.build(
        tmp_path / "libbetween.so",
        "extern int CRYPTO_it(void);\nint between(void) { return CRYPTO_it(); }",
        str(inner),
        f"-Wl,-rpath,{tmp_path}",
    )
    source = "extern int between(void);\nint OSSL_provider_init(void) { return between(); }"
    path = shared_objects.build(tmp_path / "through.so", source, str(between), f"-Wl,-rpath,{tmp_path}")
    with pytest.raises(EngineUnavailableError, match="brings a second OpenSSL") as caught:
        OpenSSLProvider("through", path)
    message(caught)
    assert "libcrypto.so.98" not in Path("/proc/self/maps").read_text()


@on_static
def test_static_linkage_needs_a_module() -> None:
    with pytest.raises(EngineUnavailableError, match="has its OpenSSL inside") as caught:
        OpenSSLProvider("legacy")
    message(caught)


@on_shared
def test_by_name_from_openssls_folder() -> None:
    assert OpenSSLProvider("legacy").name == "provider:legacy"
    with pytest.raises(EngineUnavailableError, match="OPENSSL_MODULES") as caught:
        OpenSSLProvider("nowhere")
    message(caught)


@on_shared
def test_a_module_that_needs_the_same_openssl() -> None:
    with engine_shim.linkage.binding.find().module.file() as elf:
        ours = elf.needed
    legacy = next(Path("/usr/lib").glob("*/ossl-modules/legacy.so"))
    assert "libcrypto.so.3" in Elf(legacy.read_bytes()).needed
    assert "libcrypto.so.3" in ours
    provider_module.check_module(legacy)


def test_named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSSL_MODULES", str(tmp_path))
    assert provider_module.find_module("needing") is None
    path = needing(tmp_path, "libcrypto.so.97")
    assert provider_module.find_module("needing") == path
    with pytest.raises(EngineUnavailableError, match=r"needs libcrypto\.so\.97"):
        OpenSSLProvider("needing")


def test_configuration(tmp_path: Path, engine: OpenSSLProvider) -> None:
    good, bad = tmp_path / "good.cnf", tmp_path / "bad.cnf"
    good.write_text("openssl_conf = main\n[main]\n")
    bad.write_text("[unclosed\n")
    assert OpenSSLProvider("scripted", module_path(), config=good)._home is not engine._home
    with pytest.raises(EngineUnavailableError, match="OpenSSL cannot load it"):
        OpenSSLProvider("scripted", module_path(), config=bad)


# The whole process


PREFER = """
from engine_shim import ShimError
from tlsserver.testing import ScriptedProvider
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def encrypted():
    before = scripted.counts().started
    AESGCM(bytes(16)).encrypt(bytes(12), b"text", None)
    return scripted.counts().started - before

with ScriptedProvider() as scripted:
    plain = encrypted()
    with scripted.ciphers.prefer() as preference:
        inside = encrypted()
        with scripted.ciphers.prefer("?provider=default"):
            nested = encrypted()
        again = encrypted()
    after = encrypted()
    preference.withdraw()
    assert (plain, nested, after) == (0, 0, 0), (plain, nested, after)
    assert inside == again > 0, (inside, again)
    try:
        scripted.ciphers.prefer("=")
    except ShimError as error:
        assert "property query" in str(error), error
    else:
        raise AssertionError("that is no query")
    first, second = scripted.ciphers.prefer(), scripted.ciphers.prefer("?provider=default")
    first.withdraw()
    assert encrypted() == 0
    second.withdraw()
    assert encrypted() == 0, "a query that was withdrawn is in force"
    assert encrypted() == 0
print("done")
"""


def test_prefer() -> None:
    """In a process of its own: it changes the process."""
    done = subprocess.run([sys.executable, "-c", PREFER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


ANOTHER = """
import sys
from engine_shim import EngineUnavailableError, OpenSSLProvider

first, second = (OpenSSLProvider("empty", path) for path in sys.argv[1:])
first.prefer()
first.prefer()
try:
    second.prefer()
except EngineUnavailableError as error:
    print(error)
"""

# It offers nothing.
EMPTY = """
struct function { int id; void (*it)(void); };
static const void *query(void *provider, int operation, int *no_cache) {
    (void)provider, (void)operation;
    *no_cache = 0;
    return 0;
}
int OSSL_provider_init(const void *handle, const void *in, const struct function **out, void **context) {
    static const struct function functions[] = {{1027, (void (*)(void))query}, {0, 0}};
    static int nothing;
    (void)handle, (void)in;
    *out = functions;
    *context = &nothing;
    return 1;
}
"""


def test_prefer_another_module_of_the_same_name(tmp_path: Path) -> None:
    """OpenSSL would go on with the first one, silently."""
    modules = [str(shared_objects.build(tmp_path / f"{name}.so", EMPTY)) for name in ("first", "second")]
    done = subprocess.run([sys.executable, "-c", ANOTHER, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "provider empty: another module of that name is preferred already: use that\n"
