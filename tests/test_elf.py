from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_shim.linkage import elf
from engine_shim.linkage.elf import Elf, ElfError
from support.shared_objects import build

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = """
extern int missing(int);
static int hidden(int x) { return x + 3; }
int exported(int x) { return hidden(missing(x)); }
int variable = 7;
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elf") / "small.so"
    return build(path, SOURCE, "-fno-inline", "-nostdlib", "-Wl,-rpath,/somewhere")


def bindings() -> Path:
    """The module of pyOpenSSL's bindings: PyPI's wheel in one environment, Debian's package in the other."""
    found = import_module("engine_shim.linkage.binding").find()
    return Path(found.module.path)


def test_header(small: Path) -> None:
    assert Elf(small.read_bytes()).machine in {"x86_64", "aarch64"}


def test_symbols_by_name(small: Path) -> None:
    found = Elf(small.read_bytes()).symbols({"exported", "hidden", "missing", "variable", "absent"})
    assert {name: len(symbols) for name, symbols in found.items()} == {
        "exported": 1,
        "hidden": 1,
        "missing": 1,
        "variable": 1,
        "absent": 0,
    }
    assert found["exported"][0].kind == elf.STT_FUNC
    assert found["exported"][0].size > 0
    assert found["hidden"][0].binding == 0
    assert found["variable"][0].kind != elf.STT_FUNC
    assert not found["missing"][0].defined


def test_dynamic_symbols(small: Path) -> None:
    found = {symbol.name: symbol for symbol in Elf(small.read_bytes()).dynamic_symbols()}
    assert found["exported"].defined
    assert not found["missing"].defined
    assert "hidden" not in found


def test_needed_and_run_path(small: Path, tmp_path: Path) -> None:
    user = build(tmp_path / "user.so", "int nothing;", "-nostdlib", "-Wl,--no-as-needed", str(small))
    assert Elf(user.read_bytes()).needed == (str(small),)
    assert Elf(small.read_bytes()).needed == ()
    assert Elf(small.read_bytes()).dynamic_strings(elf.DT_RPATH, elf.DT_RUNPATH) == ("/somewhere",)


def test_build_id(small: Path) -> None:
    file = Elf(small.read_bytes())
    place = file.build_id_place()
    assert place is not None
    told = subprocess.run(["readelf", "-n", small], check=True, capture_output=True, text=True).stdout
    assert f"Build ID: {file.loaded_bytes(*place).hex()}" in told


def test_without_build_id(tmp_path: Path) -> None:
    path = build(tmp_path / "anonymous.so", "int nothing;", "-Wl,--build-id=none", "-nostdlib")
    assert Elf(path.read_bytes()).build_id_place() is None


def test_stripped(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "stripped.so"
    shutil.copy(small, path)
    assert Elf(path.read_bytes()).has_symbols()
    subprocess.run(["strip", path], check=True)
    file = Elf(path.read_bytes())
    assert not file.has_symbols()
    assert file.symbols({"exported"}) == {"exported": []}


def test_loaded_bytes_are_those_of_the_function(small: Path) -> None:
    file = Elf(small.read_bytes())
    symbol = file.symbols({"exported"})["exported"][0]
    code = file.loaded_bytes(symbol.value, symbol.size)
    assert small.read_bytes()[file.file_offset(symbol.value, 1) :].startswith(code)
    with pytest.raises(ElfError, match="no loaded segment"):
        file.loaded_bytes(symbol.value, 1 << 40)


def test_the_module_of_the_bindings() -> None:
    file = Elf(bindings().read_bytes())
    anchor = import_module("engine_shim.linkage.binding").ANCHOR
    assert file.build_id_place() is not None
    if any(name.startswith("libssl") for name in file.needed):
        assert any(name.startswith("libcrypto") for name in file.needed)
    else:
        assert len(file.symbols({anchor})[anchor]) == 1


def test_a_large_table_is_read_in_a_moment() -> None:
    """35,000 symbols take 20 ms of processor time; the bound is for a machine under load."""
    data = bindings().read_bytes()
    begun = time.process_time()
    Elf(data).symbols({f"SSL_{number}" for number in range(100)})
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: b"", "outside the file"),
        (lambda data: data[:40], "outside the file"),
        (lambda data: b"#!/bin/sh" + data[9:], "not a 64-bit"),
        (lambda data: data[:4] + b"\x01" + data[5:], "not a 64-bit"),  # 32 bits
        (lambda data: data[:5] + b"\x02" + data[6:], "not a 64-bit"),  # big-endian
        (lambda data: data[:18] + b"\x03\x00" + data[20:], "machine number 3"),  # i386
        (lambda data: data[:16] + b"\x02\x00" + data[18:], "not a shared object"),  # a program at a fixed address
    ],
)
def test_other_files_are_refused(small: Path, change: Callable[[bytes], bytes], complaint: str) -> None:
    with pytest.raises(ElfError, match=complaint):
        Elf(change(small.read_bytes()))


@pytest.mark.parametrize(("offset", "field"), [(54, "program"), (58, "section")])
def test_headers_of_another_size(small: Path, offset: int, field: str) -> None:
    data = bytearray(small.read_bytes())
    data[offset] += 8
    with pytest.raises(ElfError, match="headers of"):
        getattr(Elf(bytes(data)), f"{field}s" if field == "section" else "segments")


def read_everything(data: bytes) -> None:
    file = Elf(data)
    file.build_id_place()
    file.dynamic_symbols()
    file.symbols({"exported", "missing"})
    assert isinstance(file.needed, tuple)
    file.loaded_bytes(0, 16)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_garbled_files_raise_nothing_but_elf_error(small: Path, draw: st.DataObject) -> None:
    """Invariant: whatever the bytes are, the reader answers or raises ElfError."""
    data = bytearray(small.read_bytes())
    # Headers, symbols and the dynamic section are what the numbers in the file lead to: change them most often.
    places = st.one_of(
        st.integers(0, 64 + 56 * 12), st.integers(0, len(data) - 1), st.integers(len(data) - 2500, len(data) - 1)
    )
    for place in draw.draw(st.lists(places, max_size=8)):
        data[place] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.integers(0, len(data))) :]
    with suppress(ElfError):
        read_everything(bytes(data))
