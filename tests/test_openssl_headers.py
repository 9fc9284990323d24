"""The declarations in csrc/ that stand in for OpenSSL's headers, against those headers where they are installed.

A C file is generated: each constant in a static assertion, each row of ossl.def as a function pointer of our type that
points to the real function. It compiles under -Werror, or the test says which line does not. Our constants have the
names of OpenSSL's, so theirs are read here in one file and ours from another one.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

CSRC = Path(__file__).parents[1] / "engine_shim" / "csrc"
HEADERS = (
    "async.h",
    "bio.h",
    "core.h",
    "core_dispatch.h",
    "core_names.h",
    "crypto.h",
    "engine.h",
    "err.h",
    "evp.h",
    "objects.h",
    "opensslv.h",
    "params.h",
    "pem.h",
    "provider.h",
    "rand.h",
    "rsa.h",
    "ssl.h",
    "store.h",
    "tls1.h",
    "types.h",
    "ui.h",
    "x509.h",
    "x509v3.h",
)
GONE = ("engine.h",)  # from OpenSSL 4.0 on


def include(header: str) -> str:
    line = f"#include <openssl/{header}>\n"
    return f"#if __has_include(<openssl/{header}>)\n{line}#endif\n" if header in GONE else line


PROLOGUE = "#include <stddef.h>\n" + "".join(include(header) for header in HEADERS)

pytestmark = pytest.mark.skipif(
    not Path("/usr/include/openssl/core_dispatch.h").exists(), reason="OpenSSL's headers (libssl-dev) are not installed"
)


class Row(NamedTuple):
    maybe: bool
    type: str
    name: str
    arguments: str


def rows() -> list[Row]:
    found = re.findall(r"^OSSL(_MAYBE)?\((.+?), (\w+), (\(.*\))\)$", (CSRC / "ossl.def").read_text(), re.MULTILINE)
    return [Row(bool(maybe), *rest) for maybe, *rest in found]


def constants() -> dict[str, str]:
    """Name and value of each constant of ours, by #define or in an enumeration."""
    text = re.sub(r"/\*.*?\*/", "", (CSRC / "ossl_types.h").read_text(), flags=re.DOTALL)
    defined = re.findall(r"^#define ([A-Za-z]\w+)[ \t]+(\S.*?)[ \t]*$", text, re.MULTILINE)
    listed = re.findall(r"^\s*([A-Z]\w+)\s*=\s*([^,\n]+?),?\s*$", text, re.MULTILINE)
    return dict([*defined, *listed])


def structures() -> dict[str, str]:
    """Fields, in C, of each structure that ours and OpenSSL's have to lay out alike, by the name of its type."""
    text = (CSRC / "ossl_types.h").read_text()
    found = re.findall(r"^typedef struct \w+ \{\n(.*?)\n\} (\w+);", text, re.MULTILINE | re.DOTALL)
    return {name: body for body, name in found}


def function_types() -> list[str]:
    """Our declarations of types of functions. C11 lets a type be declared twice, if both are the same."""
    text = (CSRC / "ossl_types.h").read_text()
    return re.findall(r"^typedef [^;{}]*\([^;{}]*\);$", text, re.MULTILINE)


def compile_c(folder: Path, source: str, *flags: str) -> str:
    """Compile; gives what the compiler complained about."""
    file = folder / "generated.c"
    file.write_text(source)
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-fsyntax-only"]
    return subprocess.run([*command, *flags, str(file)], capture_output=True, text=True, check=False).stderr


def test_every_row_is_understood() -> None:
    text = re.sub(r"/\*.*?\*/", "", (CSRC / "ossl.def").read_text(), flags=re.DOTALL)
    assert len(rows()) == len(re.findall(r"^OSSL", text, re.MULTILINE))
    assert len(rows()) > 50


def test_constants(tmp_path: Path) -> None:
    checks = []
    for name, value in constants().items():
        if value.startswith('"'):
            same = f"sizeof({name}) == sizeof({value}) && __builtin_strcmp({name}, {value}) == 0"
        else:
            same = f"({name}) == ({value})"
        checks.append(f'_Static_assert({same}, "{name}");')
    assert len(checks) > 20
    assert compile_c(tmp_path, PROLOGUE + "\n".join(checks)) == ""


def test_functions(tmp_path: Path) -> None:
    pointers = []
    for row in rows():
        if declared(row.name) or not row.maybe:
            pointers.append(f"extern {row.type} (*const ours_{row.name}){row.arguments};")
            pointers.append(f"{row.type} (*const ours_{row.name}){row.arguments} = {row.name};")
    assert compile_c(tmp_path, "\n".join([PROLOGUE, *function_types(), *pointers])) == ""


def test_structures(tmp_path: Path) -> None:
    checks = []
    for name, body in structures().items():
        fields = re.findall(r"(\w+)\)?(?:\(void\))?;", body)
        same = [f"sizeof(struct ours_{name}) == sizeof({name})"]
        same += [f"offsetof(struct ours_{name}, {field}) == offsetof({name}, {field})" for field in fields]
        checks.append(f"struct ours_{name} {{\n{body}\n}};")
        checks += [f'_Static_assert({each}, "{name}");' for each in same]
    assert len(structures()) > 2
    assert compile_c(tmp_path, "\n".join([PROLOGUE, *checks])) == ""


def test_a_wrong_declaration_is_noticed(tmp_path: Path) -> None:
    wrong = "extern int (*const ours)(SSL *);\nint (*const ours)(SSL *) = SSL_get_error;"
    assert "incompatible" in compile_c(tmp_path, PROLOGUE + wrong)
    assert "SSL_ERROR_WANT_ASYNC" in compile_c(tmp_path, PROLOGUE + '_Static_assert(SSL_ERROR_WANT_ASYNC == 8, "");')


@cache
def preprocessed() -> str:
    command = ["gcc", "-E", "-xc", "-"]
    return subprocess.run(command, input=PROLOGUE, capture_output=True, text=True, check=True).stdout


def declared(name: str) -> bool:
    """Tell whether the installed headers know an optional function."""
    return re.search(rf"\b{name}\(", preprocessed()) is not None
