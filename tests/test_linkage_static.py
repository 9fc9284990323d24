from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from engine_shim.linkage import static
from engine_shim.linkage.module import Module
from engine_shim.linkage.refusal import RESTART, USE_SHARED_OPENSSL, Refused
from engine_shim.linkage.table import Row
from support.shared_objects import FFI, address, build, load, module, overwrite_memory

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from pathlib import Path

# Long enough that the compared bytes hold more than a prologue.
BODY = "{ int sum = %d; for (int i = 0; i < x; i++) sum += i * i; return sum; }"
SOURCE = "\n".join(f"int {name}(int x) {BODY % number}" for number, name in enumerate(("anchor", "first", "second")))

ROWS = (Row("first", required=True), Row("second", required=True), Row("later", required=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build(tmp_path / "carrier.so", SOURCE)


def refusal(library: ctypes.CDLL, rows: tuple[Row, ...] = ROWS, anchor: str = "anchor") -> Refused:
    with pytest.raises(Refused) as caught:
        static.addresses(module(library), rows, anchor)
    assert "\n" not in f"{caught.value.reason}{caught.value.advice}"
    return caught.value


def test_addresses_are_those_of_the_functions(path: Path) -> None:
    library = load(path)
    found = static.addresses(module(library), ROWS, "anchor")
    assert found == {name: address(library, name) for name in ("first", "second")}


def test_hidden_functions_are_found(tmp_path: Path) -> None:
    library = load(
        build(tmp_path / "hidden.so", SOURCE.replace("int first", '__attribute__((visibility("hidden"))) int first'))
    )
    assert static.addresses(module(library), ROWS, "anchor").keys() == {"first", "second"}


def test_stripped(path: Path) -> None:
    subprocess.run(["strip", path], check=True)
    refused = refusal(load(path))
    assert "is stripped" in refused.reason
    assert refused.advice == USE_SHARED_OPENSSL


def test_name_missing(path: Path) -> None:
    refused = refusal(load(path), (*ROWS, Row("third", required=True)))
    assert "no symbol named third" in refused.reason


@pytest.mark.parametrize("required", [True, False])
def test_name_twice(tmp_path: Path, required: bool) -> None:
    twin = "static __attribute__((used, noinline)) int twin(int x) " + BODY
    other = tmp_path / "other.c"
    other.write_text(twin % 8)
    library = load(build(tmp_path / "twins.so", SOURCE + "\n" + twin % 9, str(other)))
    refused = refusal(library, (Row("twin", required=required),))
    assert "2 symbols named twin" in refused.reason


def test_no_function(tmp_path: Path) -> None:
    library = load(build(tmp_path / "data.so", SOURCE.replace("int first(int x)", "int first[9]; int other(int x)")))
    assert "first of" in refusal(library).reason
    assert "is no function" in refusal(library).reason


def test_declared_but_elsewhere(tmp_path: Path) -> None:
    library = load(
        build(tmp_path / "user.so", SOURCE + "\nextern int getpid(void); int user(void) { return getpid(); }")
    )
    assert "no symbol named getpid" in refusal(library, (Row("getpid", required=True),)).reason


def test_code_changed_in_memory(path: Path) -> None:
    library = load(path)
    at = address(library, "second")
    overwrite_memory(at, b"\xcc")
    refused = refusal(library)
    assert "second of" in refused.reason
    assert "differs between file and memory" in refused.reason


def test_build_id_differs(path: Path) -> None:
    library = load(path)
    loaded = module(library)
    with loaded.file() as elf:
        place = elf.build_id_place()
        assert place
        at = loaded.load_address(elf) + place[0]
    overwrite_memory(at, b"other")
    refused = refusal(library)
    assert "build id" in refused.reason
    assert refused.advice == RESTART


def replace_by_another(path: Path) -> None:
    other = path.with_name("new")
    shutil.copy(path, other)
    other.replace(path)


def replace_by_empty(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("change", [replace_by_another, os.unlink])
def test_file_replaced_or_deleted_before_the_look(path: Path, change: Callable[[Path], None]) -> None:
    library = load(path)
    change(path)
    refused = refusal(library)
    assert "deleted or replaced" in refused.reason
    assert refused.advice == RESTART


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (replace_by_another, "was replaced"),
        (os.unlink, "cannot be read"),
        (replace_by_empty, "cannot be mapped"),
    ],
)
def test_file_replaced_or_deleted_after_the_look(path: Path, change: Callable[[Path], None], complaint: str) -> None:
    loaded = module(load(path))
    change(path)
    with pytest.raises(Refused, match=complaint) as caught:
        static.addresses(loaded, ROWS, "anchor")
    assert caught.value.advice == RESTART


def test_file_garbled_in_place(path: Path) -> None:
    """The header page belongs to the loader, which has done with it: changing it on disk harms nobody."""
    library = load(path)
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03\x00")
    refused = refusal(library)
    assert "cannot be understood: made for machine number 3" in refused.reason


def test_anchor_elsewhere(path: Path) -> None:
    assert "is not where the file says" in refusal(load(path), anchor="first").reason


def test_anchor_unknown(path: Path) -> None:
    assert "is not where the file says" in refusal(load(path), anchor="nobody").reason


def test_carries_no_openssl(tmp_path: Path) -> None:
    library = build(tmp_path / "libssl.so.9", "int of_libssl(void) { return 1; }", "-Wl,-soname,libssl.so.9")
    flags = ("-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{tmp_path}")
    refused = refusal(load(build(tmp_path / "dependent.so", SOURCE, *flags)))
    assert "carries no OpenSSL" in refused.reason


def test_nothing_is_mapped_there() -> None:
    with pytest.raises(Refused, match="not in a file"):
        Module.at(16, FFI)


def test_no_file_is_mapped_there() -> None:
    memory = FFI.new("char[]", 1 << 20)
    with pytest.raises(Refused, match="not in a file"):
        Module.at(int(FFI.cast("uintptr_t", memory)), FFI)


def test_memory_outside_the_module_is_not_read(path: Path) -> None:
    loaded = module(load(path))
    end = max(mapping.end for mapping in loaded.mappings)
    with pytest.raises(Refused, match="not in the r memory"):
        loaded.read(end - 1, 2)


def test_data_is_not_code(path: Path) -> None:
    loaded = module(load(path))
    data = next(mapping for mapping in loaded.mappings if "x" not in mapping.permissions)
    with pytest.raises(Refused, match="not in the rx memory"):
        loaded.read(data.start, 4, "rx")


def test_anchor_outside_the_code(path: Path) -> None:
    library = load(path)
    loaded = module(library)
    data = next(mapping for mapping in loaded.mappings if "x" not in mapping.permissions)
    with pytest.raises(Refused, match="not loaded where"):
        static.addresses(Module.at(data.start, FFI), ROWS, "anchor")
