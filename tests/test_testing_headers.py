"""The scripted provider's declarations, against OpenSSL's headers where they are installed, and against its cdef."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from test_openssl_headers import PROLOGUE, compile_c

from support.source_tree import ROOT, without_comments
from tlsserver.testing.control import CDEF

if TYPE_CHECKING:
    from pathlib import Path

PROVIDER = ROOT / "tests" / "provider"
HEADERS = PROLOGUE + "#include <openssl/core_object.h>\n"

needs_headers = pytest.mark.skipif(
    not __import__("pathlib").Path("/usr/include/openssl/core_dispatch.h").exists(),
    reason="OpenSSL's headers (libssl-dev) are not installed",
)


def rows() -> list[tuple[str, str, str]]:
    """Return type, name and arguments of each function of the table."""
    return re.findall(r"^OSSL\((.+?), (\w+), (\(.*\))\)$", (PROVIDER / "openssl.def").read_text(), re.MULTILINE)


def constants() -> list[tuple[str, str]]:
    return re.findall(r"^#define (\w+) (\S+)$", (PROVIDER / "types.h").read_text(), re.MULTILINE)


@needs_headers
def test_functions(tmp_path: Path) -> None:
    assert len(rows()) == (PROVIDER / "openssl.def").read_text().count("\nOSSL(")
    lines = [f"extern {kind} (*const ours_{name}){arguments};" for kind, name, arguments in rows()]
    lines += [f"{kind} (*const ours_{name}){arguments} = {name};" for kind, name, arguments in rows()]
    assert compile_c(tmp_path, HEADERS + "\n".join(lines)) == ""


@needs_headers
def test_constants(tmp_path: Path) -> None:
    checks = []
    for name, value in constants():
        same = f"__builtin_strcmp({name}, {value}) == 0" if value.startswith('"') else f"({name}) == ({value})"
        checks.append(f'_Static_assert({same}, "{name}");')
    assert len(checks) > 25
    assert compile_c(tmp_path, HEADERS + "\n".join(checks)) == ""


@needs_headers
def test_types(tmp_path: Path) -> None:
    """C11 lets a type be declared twice, if both are the same."""
    types = re.findall(r"^typedef [^;{}]*\([^;{}]*\);$", (PROVIDER / "types.h").read_text(), re.MULTILINE)
    assert len(types) == 1
    item = (
        "_Static_assert(sizeof(OSSL_ITEM) == 16 && offsetof(OSSL_ITEM, ptr) == 8 && sizeof(((OSSL_ITEM *)0)->id) == 4"
    )
    assert compile_c(tmp_path, HEADERS + "\n".join([*types, f'{item}, "OSSL_ITEM");'])) == ""


@needs_headers
def test_a_wrong_constant_is_noticed(tmp_path: Path) -> None:
    assert "X" in compile_c(tmp_path, HEADERS + '_Static_assert(OSSL_OP_STORE == 21, "X");')


def test_cdef_is_the_header() -> None:
    header = re.sub(r"^#[^\n]*$", "", without_comments((PROVIDER / "scripted.h").read_text()), flags=re.MULTILINE)
    assert header.split() == CDEF.split()
