"""The linkage ``static``: the module of pyOpenSSL's bindings carries an OpenSSL inside.

So it is in the wheels of cryptography that pip installs. The functions are hidden from the loader, but the file's
``.symtab`` lists them: name, address, size. An address plus the module's load address is the function, if file and
memory are of the same build. Whatever could make it another one is looked at first, and refused: a name that is missing
or there twice, something that is no function, a file that was replaced, and code whose first bytes differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim.linkage.elf import STT_FUNC
from engine_shim.linkage.refusal import NEWER_OPENSSL, REPORT, RESTART, USE_SHARED_OPENSSL, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim.linkage.elf import Elf, Symbol
    from engine_shim.linkage.module import Module
    from engine_shim.linkage.table import Row

NAME = "static"
COMPARED = 32  # bytes of each function: enough to tell any two apart, and most functions are longer


def addresses(module: Module, rows: Sequence[Row], anchor: str) -> dict[str, int]:
    """Find the functions of OpenSSL.

    Args:
        module: Which holds pyOpenSSL's bindings.
        rows: The functions that are wanted.
        anchor: Name of the function that is known to be at the module's anchor: it proves the load address.

    Returns:
        Addresses by name; optional functions that OpenSSL lacks are left out.

    Raises:
        Refused: On any doubt.
    """
    with module.file() as elf:
        if any(name.startswith("libssl") for name in elf.needed):
            raise Refused(f"{module.path} carries no OpenSSL: it depends on libssl", "")
        if not elf.has_symbols():
            raise Refused(f"{module.path} is stripped: it does not say where its OpenSSL is", USE_SHARED_OPENSSL)
        symbols = elf.symbols({anchor, *(row.name for row in rows)})
        load_address = module.load_address(elf)
        if [load_address + symbol.value for symbol in symbols[anchor]] != [module.anchor]:
            raise Refused(f"{anchor} of {module.path} is not where the file says", REPORT)
        found = _choose(rows, symbols, module.path)
        return {name: load_address + _proved(symbol, load_address, module, elf) for name, symbol in found.items()}


def _choose(rows: Sequence[Row], symbols: dict[str, list[Symbol]], path: str) -> dict[str, Symbol]:
    """Take the one symbol of each name."""
    chosen = {}
    for row in rows:
        found = [symbol for symbol in symbols[row.name] if symbol.defined and (row.required or _is_function(symbol))]
        if len(found) > 1:
            raise Refused(f"{path} has {len(found)} symbols named {row.name}", USE_SHARED_OPENSSL)
        if found:
            chosen[row.name] = found[0]
        elif row.required:
            raise Refused(f"{path} has no symbol named {row.name}", f"{NEWER_OPENSSL}; or {USE_SHARED_OPENSSL}")
    return chosen


def _is_function(symbol: Symbol) -> bool:
    """For a function that its OpenSSL lacks, cryptography's bindings have a variable of the same name."""
    return symbol.kind == STT_FUNC and symbol.size > 0


def _proved(symbol: Symbol, load_address: int, module: Module, elf: Elf) -> int:
    """Check that the code in memory is the function in the file; returns its address in the file."""
    if not _is_function(symbol):
        raise Refused(f"{symbol.name} of {module.path} is no function", USE_SHARED_OPENSSL)
    size = min(symbol.size, COMPARED)
    if module.read(load_address + symbol.value, size, "rx") != elf.loaded_bytes(symbol.value, size):
        raise Refused(f"{symbol.name} of {module.path} differs between file and memory", RESTART)
    return symbol.value
