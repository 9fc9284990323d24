"""What `tlsserver doctor` looks at. Each check says what it found; none fails for what it finds."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine_shim import LinkageError, ShimError, attach
from engine_shim.batches import describe_batches
from engine_shim.choice import choose_for, measuring_engine
from engine_shim.linkage import explain, shared
from engine_shim.openssl_engine import engines_folder, why_no_engines
from tlsserver.cli.version import version
from tlsserver.local_certificate import KEY_TYPES
from tlsserver.selector import new_selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Engine, Key

PACKAGES = ("pyOpenSSL", "cryptography", "cffi", "selectors2", "h11", "click")
NO_OPENSSL = "none: no OpenSSL can be used"
_MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@dataclass(frozen=True)
class Findings:
    """All that was found.

    Attributes:
        tlsserver: This package's version.
        python: Python's version and make.
        platform: Kernel, machine and C library.
        packages: Version by package.
        openssl: Version of the OpenSSL that is used; None if none can be.
        linkages: For each linkage its name, whether it is used, why, and what to do.
        guarded_stacks: Whether jobs have stacks with a guard page.
        async_capable: Whether a job of this OpenSSL pauses and resumes, tried.
        notes: What else to know of this OpenSSL.
        keys: Kinds of keys that an engine can use, tried.
        batches: What performs eight signatures at once, or why nothing does.
        signatures: For each kind of key what a signature costs here, in microseconds: by OpenSSL alone (``one``), a
            batch of eight (``eight``), from how many on a batch costs less (``pays_from``), None where there are none;
            and what ``--offload auto`` makes of it.
        engines: Whether ENGINEs of OpenSSL's can be used and from where, or why not.
        providers: The same of loadable providers.
        cpus: CPUs that this process may run on.
        selector: The selector that the loop uses.
        open_files: Limits on file descriptors, soft and hard; -1: none.
        max_map_count: Most memory mappings of a process; None if unknown. A guarded stack takes two.
    """

    tlsserver: str
    python: str
    platform: str
    packages: dict[str, str]
    openssl: str | None
    linkages: list[dict[str, str]]
    guarded_stacks: bool
    async_capable: bool
    notes: list[str]
    keys: list[str]
    batches: str
    signatures: dict[str, dict[str, Any]]
    engines: str
    providers: str
    cpus: int
    selector: str
    open_files: tuple[int, int]
    max_map_count: int | None

    @property
    def is_good(self) -> bool:
        """Whether handshakes can be offloaded here."""
        return self.async_capable

    def as_dict(self) -> dict[str, Any]:
        """Return the same for JSON, with the verdict as `ok`."""
        return {"ok": self.is_good, **asdict(self)}


def look() -> Findings:
    """Look at everything."""
    try:
        linkage = attach()
    except LinkageError:
        linkage = None
    keys = _keys() if linkage else {}
    libc = " ".join(platform.libc_ver()).strip() or "unknown C library"
    return Findings(
        tlsserver=version(),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}, {libc}",
        packages={name: version(name) for name in PACKAGES},
        openssl=linkage.openssl_version if linkage else None,
        linkages=[verdict._asdict() for verdict in explain()],
        guarded_stacks=linkage.guarded_stacks if linkage else False,
        async_capable=linkage is not None,  # attach() ends with a job that pauses and resumes
        notes=list(linkage.notes) if linkage else [],
        keys=[name for name, key in keys.items() if key is not None],
        batches=describe_batches() if linkage else NO_OPENSSL,
        signatures=_signatures(keys),
        engines=_engines() if linkage else NO_OPENSSL,
        providers=_providers(linkage.name) if linkage else NO_OPENSSL,
        cpus=len(os.sched_getaffinity(0)),
        selector=_selector(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        max_map_count=_max_map_count(),
    )


def _keys() -> dict[str, Key | None]:
    """Make a key of each kind; None where it cannot be loaded and sign."""
    with measuring_engine() as engine:
        return {name: _key(engine, name, make) for name, make in {**KEY_TYPES, **_ml_dsa()}.items()}


def _key(engine: Engine, name: str, make: Callable[[], Any]) -> Key | None:
    digest = "SHA256" if name.startswith(("rsa", "ec:")) else None
    try:
        pem = make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = engine.load_key(pem)
        key.sign(b"doctor", digest=digest)
    except (ShimError, UnsupportedAlgorithm):
        return None
    return key


def _signatures(keys: dict[str, Key | None]) -> dict[str, dict[str, Any]]:
    cpus = len(os.sched_getaffinity(0))
    return {name: _signature(key, cpus) for name, key in keys.items() if key is not None}


def _signature(key: Key, cpus: int) -> dict[str, Any]:
    costs = key.batch_costs
    chosen = choose_for(key, cpus)
    return {
        "one": _microseconds(chosen.signature),
        "eight": _microseconds(costs.eight) if costs else None,
        "pays_from": costs.pays_from if costs else None,
        "auto": chosen.offload if chosen.threads is None else f"{chosen.offload}, {chosen.threads} threads",
    }


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def _engines() -> str:
    reason = why_no_engines()
    return f"none: {reason}" if reason else f"by id from {engines_folder()}, or by path"


def _providers(linkage: str) -> str:
    if linkage == shared.NAME:
        return "by name from the folder OPENSSL_MODULES, or OpenSSL's own, or by path"
    return (
        "only by path and if they need no libcrypto: pyOpenSSL has its OpenSSL inside, and theirs would be a second one"
    )


def _ml_dsa() -> dict[str, Callable[[], Any]]:
    """Return how to make ML-DSA keys, where cryptography can."""
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - since cryptography 47
    except ImportError:
        return {}
    sizes = (44, 65, 87)
    return {f"ml-dsa:{size}": getattr(mldsa, f"MLDSA{size}PrivateKey").generate for size in sizes}


def _selector() -> str:
    selector = new_selector()
    selector.close()
    return f"{type(selector).__module__}.{type(selector).__qualname__}"


def _max_map_count() -> int | None:
    try:
        return int(_MAX_MAP_COUNT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
