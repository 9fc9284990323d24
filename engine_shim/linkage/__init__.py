"""How the shim reaches the OpenSSL that pyOpenSSL uses: two linkages, one proof, and one error that says why not.

``shared`` and ``static`` are one file each: both turn names into addresses. To add one, write such a file and add a
line to ``LINKAGES``. Nothing here ever loads a second OpenSSL.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine_shim.errors import LinkageError
from engine_shim.linkage import binding, proof, shared, static, table
from engine_shim.linkage.refusal import Refused, Verdict
from engine_shim.linkage.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine_shim.linkage.binding import Binding
    from engine_shim.linkage.table import Table

__all__ = ["Linkage", "Refused", "Verdict", "attach", "explain", "find"]


@dataclass(frozen=True)
class Linkage:
    """How the shim reaches OpenSSL.

    Attributes:
        name: "shared" or "static".
        path: The module that holds pyOpenSSL's bindings.
        openssl_version: As OpenSSL says it, with its date.
        openssl_version_number: 0xMNN00PP0 (``man 3 OpenSSL_version_num``).
        guarded_stacks: Jobs run on mapped stacks with a guard page.
        notes: What the user should know about this OpenSSL; each is one line.
    """

    name: str
    path: str
    openssl_version: str
    openssl_version_number: int
    guarded_stacks: bool
    notes: tuple[str, ...]


def _shared(found: Binding, rows: Sequence[Row], extension: Table) -> dict[str, int]:
    return shared.addresses(found.module, rows, extension)


def _static(found: Binding, rows: Sequence[Row], _extension: Table) -> dict[str, int]:
    return static.addresses(found.module, rows, binding.ANCHOR)


LINKAGES: dict[str, Callable[[Binding, Sequence[Row], Table], dict[str, int]]] = {
    shared.NAME: _shared,
    static.NAME: _static,
}


class _Attachment:
    """The one attempt of this process that succeeded, or the verdicts of the last one that did not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._linkage: Linkage | None = None
        self._verdicts: tuple[Verdict, ...] = ()

    def attach(self) -> tuple[Linkage | None, tuple[Verdict, ...]]:
        with self._lock:
            if self._linkage is None:
                self._linkage, self._verdicts = _try_all()
            return self._linkage, self._verdicts


_attachment = _Attachment()


def attach() -> Linkage:
    """Reach the OpenSSL that pyOpenSSL uses, prove it, and load the provider.

    Any thread may call it, as often as it likes: the first call that succeeds counts.

    Returns:
        How it was reached.

    Raises:
        LinkageError: No linkage can be used. Its one line lists, for each, why, and what to do.
    """
    linkage, verdicts = _attachment.attach()
    if linkage is None:
        raise LinkageError(_message(verdicts))
    return linkage


def explain() -> tuple[Verdict, ...]:
    """Say for each linkage whether it is used, why, and what to do: for ``tlsserver doctor``. Never raises."""
    return _attachment.attach()[1]


def find(names: Iterable[str]) -> dict[str, int]:
    """Find functions of the OpenSSL in use that the shim itself does not call, with the same proof.

    For C code that has to work with both linkages, such as a provider that is linked to no OpenSSL.

    Args:
        names: As OpenSSL names them; all must be there.

    Returns:
        Addresses by name.

    Raises:
        LinkageError: OpenSSL cannot be reached, or lacks one of them.
    """
    linkage = attach()
    try:
        return LINKAGES[linkage.name](binding.find(), [Row(name, required=True) for name in names], table.load())
    except Refused as refused:
        raise LinkageError(f"{refused.reason} -> {refused.advice}") from refused


def _try_all() -> tuple[Linkage | None, tuple[Verdict, ...]]:
    try:
        extension = table.load()
        found = binding.find()
    except Refused as refused:
        return None, tuple(Verdict(name, "refused", refused.reason, refused.advice) for name in LINKAGES)
    linkage: Linkage | None = None
    verdicts = []
    for name in LINKAGES:
        if linkage is not None:
            verdicts.append(Verdict(name, "not tried", f"{linkage.name} is used", ""))
            continue
        try:
            linkage = _try(name, found, extension)
            verdicts.append(Verdict(name, "used", f"{linkage.openssl_version} through {linkage.path}", ""))
        except Refused as refused:
            verdicts.append(Verdict(name, "refused", refused.reason, refused.advice))
    return linkage, tuple(verdicts)


def _try(name: str, found: Binding, extension: Table) -> Linkage:
    addresses = LINKAGES[name](found, extension.rows(), extension)
    extension.bind(addresses)
    try:
        proved = proof.prove(extension, found, addresses)
    except BaseException:
        extension.bind({})
        raise
    return Linkage(
        name=name,
        path=found.module.path,
        openssl_version=found.version_text,
        openssl_version_number=found.version_number,
        guarded_stacks=proved.guarded_stacks,
        notes=proved.notes,
    )


def _message(verdicts: tuple[Verdict, ...]) -> str:
    """Make the one line; what holds for all linkages is said once."""
    if len({(verdict.reason, verdict.advice) for verdict in verdicts}) == 1:
        return f"cannot use the OpenSSL of pyOpenSSL: {_clause(verdicts[0])}"
    each = "; ".join(f"{verdict.linkage}: {_clause(verdict)}" for verdict in verdicts)
    return f"cannot use the OpenSSL of pyOpenSSL: {each}"


def _clause(verdict: Verdict) -> str:
    return f"{verdict.reason} -> {verdict.advice}" if verdict.advice else verdict.reason
