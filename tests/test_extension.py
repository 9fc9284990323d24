from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from engine_shim import _native
from engine_shim.linkage import table
from engine_shim.linkage.elf import DT_RPATH, DT_RUNPATH, STT_FUNC, Elf

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "engine_shim" / "csrc"


@pytest.fixture(scope="module")
def extension() -> Elf:
    return Elf(Path(_native.__file__).read_bytes())


def test_no_openssl_is_wanted_from_elsewhere(extension: Elf) -> None:
    wanted = {symbol.name for symbol in extension.dynamic_symbols() if not symbol.defined}
    assert wanted & {row.name for row in table.load().rows()} == set()
    prefixes = ("SSL_", "EVP_", "ASYNC_", "OSSL_", "OPENSSL_", "CRYPTO_", "ERR_", "BIO_", "PEM_", "X509_", "ENGINE_")
    crypto_mb = ("BN_", "EC", "RSA_")  # its entry points for OpenSSL's numbers are linked in, and never called
    assert [name for name in wanted if name.startswith(prefixes + crypto_mb)] == []
    assert [name for name in extension.needed if "ssl" in name or "crypto" in name] == []


def test_one_symbol_is_exported(extension: Elf) -> None:
    exported = [
        symbol.name
        for symbol in extension.dynamic_symbols()
        if symbol.defined and symbol.binding != 0 and symbol.kind in {0, 1, STT_FUNC}
    ]
    assert exported == ["PyInit__native"]


def test_python_is_used_through_its_stable_interface(extension: Elf) -> None:
    wanted = {symbol.name for symbol in extension.dynamic_symbols() if not symbol.defined}
    assert not {name for name in wanted if name.startswith("_Py")} - {"_Py_NoneStruct", "_Py_Dealloc"}
    assert ".abi3." in Path(_native.__file__).name


def test_stack_is_not_executable(extension: Elf) -> None:
    gnu_stack = [segment for segment in extension.segments if segment.kind == 0x6474E551]
    assert [segment.flags & 1 for segment in gnu_stack] == [0]


def test_run_path_is_that_of_python_at_most(extension: Elf) -> None:
    """pyenv's and conda's Python add one to all extensions; `make wheel` leaves it out."""
    paths = extension.dynamic_strings(DT_RPATH, DT_RUNPATH)
    assert [path for path in paths if "ssl" in path.lower()] == []


# The build script


def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "engine_shim" / "_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64"), ("win32", "AMD64")])
def test_other_platforms_are_refused_with_one_line(system: str, machine: str) -> None:
    with pytest.raises(SystemExit) as caught:
        build_script().refuse_other_platforms(system, machine)
    message = str(caught.value)
    assert "\n" not in message
    assert f"this is {system} on {machine}" in message


def test_cdef_is_the_header_without_comments_and_preprocessor() -> None:
    header = "/* one\n * two */\n#ifndef X\n  # define X\nint a(void); // three\n#endif\nint b(int /* four */ c);\n"
    words = build_script().cdef_of(header).split()
    assert " ".join(words) == "int a(void); int b(int c);"


def test_everything_of_the_header_can_be_called() -> None:
    cdef = build_script().cdef_of((CSRC / "shim.h").read_text())
    assert "#" not in cdef
    lib: Any = _native.lib
    assert {"ossl_bind", "attach_selftest", "async_ssl_call", "key_load"} <= set(dir(lib))


def test_importing_does_not_touch_openssl() -> None:
    """attach() is what does, so that a program can set the stage first (stacks, fork)."""
    code = "import engine_shim._native as n; assert n.lib.ossl_address(0) == n.ffi.NULL"
    source = str(Path(engine_shim.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True)
