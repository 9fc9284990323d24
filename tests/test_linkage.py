from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cryptography
import pytest
from OpenSSL import SSL
from OpenSSL._util import ffi as pyopenssl_ffi
from OpenSSL._util import lib as pyopenssl

import engine_shim
from engine_shim import linkage
from engine_shim.errors import LinkageError
from engine_shim.linkage import binding, maps, proof, table
from engine_shim.linkage.refusal import NEWER_OPENSSL, Refused

ATTACH = "import engine_shim; print(engine_shim.attach().name)"


@pytest.fixture
def found() -> binding.Binding:
    return binding.find()


class FakeTable:
    """A shim on which each step of the proof can be made to fail, and which tells the order of the steps."""

    def __init__(self, found: binding.Binding, **answers: Any) -> None:
        self.answers = {
            "version_number": found.version_number,
            "version_text": found.version_text,
            "fips_only": False,
            "stacks": table.STACKS_GUARDED,
            "selftest": True,
            "provider": True,
            **answers,
        }
        self.steps: list[str] = []
        self.bound: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        def step() -> Any:
            self.steps.append(name)
            return self.answers[name]

        return step

    def rows(self) -> tuple[table.Row, ...]:
        return (table.Row("SSL_read", required=True), table.Row("SSL_get0_group_name", required=False))

    def bind(self, addresses: dict[str, int]) -> None:
        self.bound = dict(addresses)

    def last_error(self) -> str:
        return "what OpenSSL said"

    def context_timeout(self, ssl_ctx: int) -> int:
        self.steps.append("context_timeout")
        read = pyopenssl.SSL_CTX_get_timeout(pyopenssl_ffi.cast("SSL_CTX *", ssl_ctx))
        return cast("int", self.answers.get("context_timeout", read))


def try_static(found: binding.Binding, fake: FakeTable, monkeypatch: pytest.MonkeyPatch) -> linkage.Linkage:
    monkeypatch.setitem(linkage.LINKAGES, "static", lambda *_: {"SSL_read": 1})
    return linkage._try("static", found, cast("table.Table", fake))


# The real thing


def test_attach_is_idempotent(found: binding.Binding) -> None:
    attached = engine_shim.attach()
    assert engine_shim.attach() is attached
    assert attached.path == found.module.path
    assert attached.openssl_version == SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
    assert attached.openssl_version_number == pyopenssl.OpenSSL_version_num()
    assert attached.guarded_stacks == (attached.openssl_version_number >= 0x30200000)


def test_attach_from_many_threads_at_once() -> None:
    code = """
import threading, engine_shim
gate, seen = threading.Barrier(8), []
def run():
    gate.wait()
    seen.append(engine_shim.attach())
threads = [threading.Thread(target=run) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(seen) == 8 and len(set(map(id, seen))) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_required_function_is_bound() -> None:
    attached = engine_shim.attach()
    extension = table.load()
    addresses = [
        int(extension._ffi.cast("uintptr_t", extension._lib.ossl_address(i))) for i in range(len(extension.rows()))
    ]
    assert [row.name for row, at in zip(extension.rows(), addresses, strict=True) if row.required and not at] == []
    mappings = maps.read()
    homes = {home.path for home in (maps.find(mappings, at) for at in addresses if at) if home}
    assert all("x" in home.permissions for home in (maps.find(mappings, at) for at in addresses if at) if home)
    if attached.name == "static":
        assert homes == {attached.path}
    else:
        assert {Path(home).name.split(".")[0] for home in homes} == {"libssl", "libcrypto"}


def test_explain_says_which_is_used() -> None:
    attached = engine_shim.attach()
    verdicts = {verdict.linkage: verdict for verdict in linkage.explain()}
    assert list(verdicts) == ["shared", "static"]
    assert verdicts[attached.name].verdict == "used"
    assert attached.openssl_version in verdicts[attached.name].reason
    assert all(verdict.reason for verdict in verdicts.values())


def refused_attach(**environment: str) -> str:
    """Attach in a fresh interpreter, which refuses; gives the one line."""
    script = f"""
import sys
from engine_shim.errors import LinkageError
try:
    {ATTACH}
except LinkageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def environment(**more: str) -> dict[str, str]:
    source = str(Path(engine_shim.__file__).parents[1])
    return {"PYTHONPATH": source, "PATH": "/usr/bin:/bin", **more}


def test_fips_only_is_refused_by_name(tmp_path: Path) -> None:
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        "openssl_conf = init\n[init]\nalg_section = algorithms\n[algorithms]\ndefault_properties = fips=yes\n"
    )
    told = refused_attach(**environment(OPENSSL_CONF=str(configuration)))
    assert "fips=yes" in told
    assert "openssl.cnf" in told


def test_stripped_bindings_are_refused(tmp_path: Path, found: binding.Binding) -> None:
    if engine_shim.attach().name != "static":
        pytest.skip("a module that depends on libssl needs no .symtab")
    package = Path(cryptography.__file__).parent
    shutil.copytree(package, tmp_path / "cryptography", ignore=shutil.ignore_patterns("__pycache__"))
    copied = tmp_path / "cryptography" / Path(found.module.path).relative_to(package)
    subprocess.run(["strip", copied], check=True)
    paths = environment()
    told = refused_attach(**{**paths, "PYTHONPATH": f"{tmp_path}:{paths['PYTHONPATH']}"})
    assert f"{copied} is stripped" in told
    assert "--no-binary cryptography" in told


# Orchestration


def test_both_linkages_are_listed_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(reason: str, advice: str) -> Any:
        def way(*_: Any) -> dict[str, int]:
            raise Refused(reason, advice)

        return way

    monkeypatch.setattr(linkage, "_attachment", linkage._Attachment())
    monkeypatch.setattr(
        linkage, "LINKAGES", {"shared": refuse("no library", ""), "static": refuse("stripped", "strip not")}
    )
    with pytest.raises(LinkageError) as caught:
        linkage.attach()
    assert str(caught.value) == (
        "cannot use the OpenSSL of pyOpenSSL: shared: no library; static: stripped -> strip not"
    )
    assert [verdict.verdict for verdict in linkage.explain()] == ["refused", "refused"]


def test_what_holds_for_both_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> binding.Binding:
        raise Refused("pyOpenSSL uses LibreSSL 4.1.0", NEWER_OPENSSL)

    monkeypatch.setattr(linkage, "_attachment", linkage._Attachment())
    monkeypatch.setattr(binding, "find", find)
    with pytest.raises(LinkageError) as caught:
        linkage.attach()
    assert str(caught.value) == f"cannot use the OpenSSL of pyOpenSSL: pyOpenSSL uses LibreSSL 4.1.0 -> {NEWER_OPENSSL}"


def test_a_refused_attempt_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    attachment = linkage._Attachment()
    with monkeypatch.context() as patch:
        patch.setattr(table, "load", lambda: (_ for _ in ()).throw(Refused("not now", "later")))
        assert attachment.attach()[0] is None
    assert attachment.attach()[0] is not None


# The proof


def test_order_of_the_proof(found: binding.Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTable(found)
    attached = try_static(found, fake, monkeypatch)
    assert fake.steps == [
        "version_number",
        "version_text",
        "fips_only",
        "context_timeout",
        "context_timeout",
        "stacks",
        "selftest",
        "provider",
    ]
    assert fake.bound == {"SSL_read": 1}
    assert attached.guarded_stacks


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ({"version_number": 0x30000000}, "this way leads to"),
        ({"version_text": "OpenSSL 3.0.0"}, "this way leads to OpenSSL 3.0.0, and pyOpenSSL uses"),
        ({"fips_only": True}, "fips=yes"),
        ({"context_timeout": 7_817}, "cannot be read back"),
        ({"selftest": False}, "no job can pause and resume: what OpenSSL said"),
        ({"provider": False}, "does not take the built-in provider: what OpenSSL said"),
    ],
)
def test_each_step_refuses_and_empties_the_table(
    found: binding.Binding, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], complaint: str
) -> None:
    fake = FakeTable(found, **answers)
    with pytest.raises(Refused, match=complaint) as caught:
        try_static(found, fake, monkeypatch)
    assert caught.value.advice
    assert fake.bound == {}


def test_an_unexpected_error_empties_the_table_too(found: binding.Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTable(found)
    monkeypatch.setattr(proof, "prove", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        try_static(found, fake, monkeypatch)
    assert fake.bound == {}


def test_notes(found: binding.Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    late = try_static(found, FakeTable(found, stacks=table.STACKS_REFUSED), monkeypatch)
    assert not late.guarded_stacks
    assert late.notes[0] == proof.MISSED["ASYNC_set_mem_functions"]
    assert "had made a job before" in late.notes[1]


def test_advice_where_libc_has_no_contexts(found: binding.Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = maps.parse("7f00-7f01 r-xp 00000000 fe:00 7 /lib/ld-musl-x86_64.so.1")
    monkeypatch.setattr(maps, "read", lambda: loader)
    fake = cast("table.Table", FakeTable(found, selftest=False))
    with pytest.raises(Refused) as caught:
        proof.prove(fake, found, ())
    assert "glibc" in caught.value.advice


# pyOpenSSL's bindings


def test_bindings_are_found(found: binding.Binding) -> None:
    assert found.module.path.endswith(".so")
    assert found.version_text.startswith("OpenSSL ")
    assert found.version_number == pyopenssl.OpenSSL_version_num()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0x1010117F, b"OpenSSL 1.1.1w"),
        (0x101010FF, b"OpenSSL 1.1.1o"),
        (0x20000000, b"LibreSSL 3.8.2"),
        (0x1010107F, b"BoringSSL"),
        (0x40000000, b"AWS-LC"),
    ],
)
def test_other_libraries_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, number: int, text: bytes) -> None:
    lib, ffi = binding._import()
    fake = SimpleNamespace(OpenSSL_version_num=lambda: number, OpenSSL_version=lambda _: ffi.new("char[]", text))
    addresses = SimpleNamespace(addressof=lambda *_: ffi.addressof(lib, "SSL_new"), cast=ffi.cast, string=ffi.string)
    monkeypatch.setattr(binding, "_import", lambda: (fake, addresses))
    with pytest.raises(Refused, match=f"pyOpenSSL uses {text.decode()}") as caught:
        binding.find()
    assert caught.value.advice == NEWER_OPENSSL


def test_bindings_of_an_unknown_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "PLACES", ("cryptography.hazmat.nowhere._openssl",))
    with pytest.raises(Refused, match="compiled bindings"):
        binding.find()


def test_pyopenssl_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL._util", None)
    with pytest.raises(Refused, match="pyOpenSSL cannot be imported") as caught:
        binding.find()
    assert "pip install" in caught.value.advice


# The extension and the platform


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")])
def test_other_platforms_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(Refused, match=f"does not run on {system} on {machine}"):
        table.load()


def test_extension_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine_shim._native", None)
    with pytest.raises(Refused, match="extension of engine_shim cannot be loaded"):
        table.load()


def test_rows_of_the_table() -> None:
    rows = table.load().rows()
    assert len({row.name for row in rows}) == len(rows)
    assert table.Row("SSL_do_handshake", required=True) in rows
    assert table.Row("ASYNC_set_mem_functions", required=False) in rows
    assert set(proof.MISSED) <= {row.name for row in rows if not row.required}


# /proc/self/maps

MAPS = """\
55e0-55f0 r--p 00001000 fe:00 12 /usr/lib/a name with spaces.so
55f0-5600 r-xp 00002000 fe:00 12                          /usr/lib/b.so (deleted)
5600-5700 rw-p 00000000 00:00 0
5700-5800 rw-p 00000000 00:00 0                           [heap]
5800-5900 r--s 00000000 00:2f 18446744073709551615        /with\\012newline
this is no mapping
"""


def test_parsing_of_maps() -> None:
    spaces, deleted, anonymous, heap, newline = maps.parse(MAPS)
    assert (spaces.path, spaces.offset, spaces.file, spaces.deleted) == (
        "/usr/lib/a name with spaces.so",
        0x1000,
        ("fe:00", 12),
        False,
    )
    assert (deleted.path, deleted.deleted, deleted.permissions) == ("/usr/lib/b.so", True, "r-xp")
    assert (anonymous.path, anonymous.inode) == ("", 0)
    assert heap.path == "[heap]"
    assert newline.path == "/with\nnewline"


def test_finding_an_address() -> None:
    mappings = maps.parse(MAPS)
    assert maps.find(mappings, 0x55F0) is mappings[1]
    assert maps.find(mappings, 0x55EF) is mappings[0]
    assert maps.find(mappings, 0x5900) is None
    assert not mappings[0].holds(0x55EF, 2)


def test_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_bytes", missing)
    with pytest.raises(Refused, match="/proc/self/maps cannot be read") as caught:
        maps.read()
    assert "mount /proc" in caught.value.advice


def test_the_stack_is_mapped() -> None:
    assert len([mapping for mapping in maps.read() if mapping.path == "[stack]"]) == 1
