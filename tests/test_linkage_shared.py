from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from engine_shim.linkage import shared, table
from engine_shim.linkage.refusal import NEWER_OPENSSL, Refused
from engine_shim.linkage.table import Row
from support.shared_objects import address, build, load, module

if TYPE_CHECKING:
    import ctypes
    from pathlib import Path

NUMBERS = itertools.count()
ROWS = (Row("of_ssl", required=True), Row("of_crypto", required=True), Row("of_later", required=False))


def function(name: str) -> str:
    return f"int {name}(void) {{ return 1; }}"


def library(folder: Path, stem: str, source: str) -> Path:
    """Build a library under a name of its own: the loader takes one that it has loaded for every other of that name."""
    name = f"{stem}.so.9.{next(NUMBERS)}"
    return build(folder / name, source, f"-Wl,-soname,{name}")


def dependent(folder: Path, *libraries: Path) -> ctypes.CDLL:
    """Load a module that depends on the libraries, as the one of the bindings does."""
    flags = ("-Wl,--no-as-needed", *map(str, libraries), f"-Wl,-rpath,{folder}")
    return load(build(folder / "bindings.so", function("anchor"), *flags))


@pytest.fixture
def extension() -> table.Table:
    return table.load()


@pytest.fixture
def openssl(tmp_path: Path) -> tuple[Path, Path]:
    ssl = library(tmp_path, "libssl", function("of_ssl"))
    return ssl, library(tmp_path, "libcrypto", function("of_crypto"))


def refusal(loaded: ctypes.CDLL, extension: table.Table, rows: tuple[Row, ...] = ROWS) -> Refused:
    with pytest.raises(Refused) as caught:
        shared.addresses(module(loaded), rows, extension)
    assert "\n" not in f"{caught.value.reason}{caught.value.advice}"
    return caught.value


def test_addresses_are_those_of_the_libraries(
    tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table
) -> None:
    found = shared.addresses(module(dependent(tmp_path, *openssl)), ROWS, extension)
    expected = {name: address(load(path), name) for path, name in zip(openssl, ("of_ssl", "of_crypto"), strict=True)}
    assert found == expected


def test_required_function_missing(tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table) -> None:
    more = tuple(Row(f"newer_{number}", required=True) for number in range(5))
    refused = refusal(dependent(tmp_path, *openssl), extension, (*ROWS, *more))
    assert refused.reason == "OpenSSL lacks newer_0, newer_1, newer_2 and 2 more"
    assert refused.advice == NEWER_OPENSSL


def test_carries_its_own(tmp_path: Path, extension: table.Table) -> None:
    assert "carries its own OpenSSL" in refusal(dependent(tmp_path), extension).reason


def test_depends_on_half_of_openssl(tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table) -> None:
    assert "does not depend on libcrypto" in refusal(dependent(tmp_path, openssl[0]), extension).reason


def test_function_of_another_library(tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table) -> None:
    other = library(tmp_path, "libother", function("of_other"))
    loaded = dependent(tmp_path, *openssl, other)
    refused = refusal(loaded, extension, (*ROWS, Row("of_other", required=True)))
    assert "of_other is in " in refused.reason
    assert f"{other} and not in libssl" in refused.reason


def test_a_second_openssl_comes_first(tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table) -> None:
    """As with LD_PRELOAD: the loader gives the bindings the global function, not that of the library."""
    name = "interposed_in_the_tests"
    ssl = library(tmp_path, "libssl", function(name))
    (tmp_path / "preloaded").mkdir()
    load(library(tmp_path / "preloaded", "libssl-first", function(name)), os.RTLD_GLOBAL)
    refused = refusal(dependent(tmp_path, ssl, openssl[1]), extension, (Row(name, required=True),))
    assert "second OpenSSL" in refused.reason
    assert "LD_PRELOAD" in refused.advice


def test_the_loader_does_not_know_it(
    tmp_path: Path, openssl: tuple[Path, Path], extension: table.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "dlopen", lambda _: 0)
    assert "the loader does not know" in refusal(dependent(tmp_path, *openssl), extension).reason


def test_handles_and_names(extension: table.Table) -> None:
    everywhere = extension.dlopen(None)
    assert everywhere
    assert extension.dlsym(everywhere, "getpid")
    assert extension.dlsym(everywhere, "no_such_function") == 0


def test_a_file_that_is_not_loaded_is_not_loaded_by_us(openssl: tuple[Path, Path], extension: table.Table) -> None:
    assert extension.dlopen(str(openssl[0])) == 0
