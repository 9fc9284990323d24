"""The proof that the table is bound to the OpenSSL that pyOpenSSL uses, cheapest and safest steps first.

Each step calls only what the steps before it have shown to be right: first a function without arguments, then one that
reads an object which pyOpenSSL made. What changes the process comes last: the allocator of stacks, which OpenSSL takes
before its first job only, then the self-test, which is that first job, and the provider, which holds on to the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine_shim.linkage import maps
from engine_shim.linkage.refusal import REPORT, Refused
from engine_shim.linkage.table import STACKS_GUARDED, STACKS_REFUSED

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine_shim.linkage.binding import Binding
    from engine_shim.linkage.table import Table

TIMEOUTS = (86_399, 7_817)  # seconds: two values that no OpenSSL has by default, and that nobody writes by chance

# What the user misses where an optional function is absent. Functions that nobody misses are not listed.
MISSED = {
    "ASYNC_set_mem_functions": "OpenSSL before 3.2: the stacks of jobs have 32 KiB and no guard page",
}


@dataclass(frozen=True)
class Proof:
    """What the proof found out.

    Attributes:
        guarded_stacks: Jobs run on mapped stacks with a guard page.
        notes: What the user should know; each is one line.
    """

    guarded_stacks: bool
    notes: tuple[str, ...]


def prove(table: Table, binding: Binding, bound: Collection[str]) -> Proof:
    """Prove the linkage and make the shim ready.

    Args:
        table: Its table is bound.
        binding: pyOpenSSL's bindings.
        bound: Names of the functions in the table.

    Raises:
        Refused: At the first step that does not hold. The table must be emptied then.
    """
    _check_version(table, binding)
    if table.fips_only():  # before the object: with no FIPS provider loaded, pyOpenSSL could not even make one
        raise Refused(
            "OpenSSL's default property query is fips=yes, and engine_shim's provider is not validated",
            "remove fips=yes from the default properties in openssl.cnf (or OPENSSL_CONF) for this process",
        )
    _check_object(table, binding)
    stacks = table.stacks()
    if not table.selftest():
        raise Refused(f"no job can pause and resume: {table.last_error()}", _advice_on_jobs())
    if not table.provider():
        raise Refused(f"OpenSSL does not take the built-in provider: {table.last_error()}", REPORT)
    return Proof(stacks == STACKS_GUARDED, _notes(stacks, bound))


def _check_version(table: Table, binding: Binding) -> None:
    ours = (table.version_number(), table.version_text())
    if ours != (binding.version_number, binding.version_text):
        raise Refused(f"this way leads to {ours[1]}, and pyOpenSSL uses {binding.version_text}", REPORT)


def _check_object(table: Table, binding: Binding) -> None:
    """Read back through the table what pyOpenSSL wrote into an object of its own."""
    from OpenSSL import SSL  # noqa: PLC0415 - binding.find() has shown that it can be imported

    try:
        context = SSL.Context(SSL.TLS_METHOD)
    except SSL.Error as error:
        raise Refused(
            f"pyOpenSSL cannot make an SSL.Context ({error})", "look into openssl.cnf and OPENSSL_CONF"
        ) from error
    address = int(binding.module.ffi.cast("uintptr_t", context._context))  # noqa: SLF001 - the one way to the SSL_CTX
    for timeout in TIMEOUTS:
        context.set_timeout(timeout)
        if table.context_timeout(address) != timeout:
            raise Refused("an object that pyOpenSSL made cannot be read back", REPORT)


def _advice_on_jobs() -> str:
    if any("ld-musl" in mapping.path for mapping in maps.read()):
        return "use a system with glibc: OpenSSL has no jobs on musl"
    return "use an OpenSSL that was built with asynchronous jobs (without no-async)"


def _notes(stacks: int, bound: Collection[str]) -> tuple[str, ...]:
    notes = [note for name, note in MISSED.items() if name not in bound]
    if stacks == STACKS_REFUSED:
        notes.append("OpenSSL had made a job before: stacks have no guard page (call engine_shim.attach() earlier)")
    return tuple(notes)
