"""The linkage ``shared``: the module of pyOpenSSL's bindings depends on libssl and libcrypto.

So it is on Debian, Fedora, conda and in builds from source. ``dlsym`` on the module's own handle searches what the
module depends on, in the order in which the loader searched for the module itself, except for the global scope (the
program, what it is linked with, LD_PRELOAD), which the loader asks first. A function that is there as well, at another
address, means that pyOpenSSL calls that one: we refuse rather than guess.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from engine_shim.linkage import maps
from engine_shim.linkage.refusal import NEWER_OPENSSL, REPORT, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim.linkage.module import Module
    from engine_shim.linkage.table import Row, Table

NAME = "shared"
LIBRARIES = ("libssl", "libcrypto")


def addresses(module: Module, rows: Sequence[Row], table: Table) -> dict[str, int]:
    """Find the functions of OpenSSL.

    Args:
        module: Which holds pyOpenSSL's bindings.
        rows: The functions that are wanted.
        table: Has ``dlopen`` and ``dlsym``.

    Returns:
        Addresses by name; optional functions that OpenSSL lacks are left out.

    Raises:
        Refused: Not exactly those of the libraries that the module depends on, or a required one is missing.
    """
    _check_depends_on_openssl(module)
    handle = table.dlopen(module.path)
    if not handle:
        raise Refused(f"the loader does not know {module.path}", REPORT)
    found = {row.name: table.dlsym(handle, row.name) for row in rows}
    missing = [row.name for row in rows if row.required and not found[row.name]]
    if missing:
        raise Refused(f"OpenSSL lacks {_some(missing)}", NEWER_OPENSSL)
    found = {name: address for name, address in found.items() if address}
    _check_not_interposed(found, table)
    _check_homes(found)
    return found


def _check_depends_on_openssl(module: Module) -> None:
    with module.file() as elf:
        needed = elf.needed
    for library in LIBRARIES:
        if not any(name.startswith(library) for name in needed):
            raise Refused(f"{module.path} carries its own OpenSSL: it does not depend on {library}", "")


def _check_not_interposed(found: dict[str, int], table: Table) -> None:
    everywhere = table.dlopen(None)
    for name, address in found.items():
        if table.dlsym(everywhere, name) not in (0, address):
            raise Refused(
                f"this process has a second OpenSSL in its global scope, whose {name} comes first",
                "run without LD_PRELOAD, and with a Python that does not export an OpenSSL of its own",
            )


def _check_homes(found: dict[str, int]) -> None:
    """Every function lies in the code of a library of OpenSSL: one of the same name elsewhere is not taken for it."""
    code = [mapping for mapping in maps.read() if "x" in mapping.permissions]
    for name, address in found.items():
        home = maps.find(code, address)
        if home is None or not PurePath(home.path).name.startswith(LIBRARIES):
            raise Refused(f"{name} is in {home.path if home else 'no code'} and not in libssl or libcrypto", REPORT)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown  # noqa: PLR2004 - three fit on the line
