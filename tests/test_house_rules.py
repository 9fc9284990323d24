"""The house rules, executable. Each table is the rule; whoever adds a file adds a row."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from support import source_tree
from support.covered_by import COVERED_BY
from support.source_tree import ROOT, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# From the bottom up. A module may import what stands in its own row or below it; a name stands for its submodules too.
LAYERS = (
    (
        "engine_shim.errors",
        "engine_shim.cached",
        "engine_shim.paused",
        "engine_shim.linkage.refusal",
        "engine_shim.linkage.elf",
    ),
    ("engine_shim._crypto_mb",),
    ("engine_shim.linkage.maps", "engine_shim.linkage.table"),
    ("engine_shim.linkage.module", "engine_shim.linkage.binding"),
    ("engine_shim.linkage.shared", "engine_shim.linkage.static", "engine_shim.linkage.proof"),
    ("engine_shim.linkage",),
    ("engine_shim.native",),
    ("engine_shim.questions", "engine_shim.loops", "engine_shim.read_buffer", "engine_shim.settled"),
    ("engine_shim.base", "engine_shim.wait", "engine_shim.batches"),
    ("engine_shim.counters", "engine_shim.key", "engine_shim.async_ssl", "engine_shim.alpn", "engine_shim._build"),
    ("engine_shim.key_exchange", "engine_shim.client_context", "engine_shim.server_context"),
    ("engine_shim.context_facts",),
    ("engine_shim.ticket_keys",),
    ("engine_shim.handshake_policy", "engine_shim.key_log"),
    ("engine_shim.clients",),
    ("engine_shim.peer", "engine_shim.facts"),
    ("engine_shim.identity", "engine_shim.server_names"),
    ("engine_shim.engine",),
    ("engine_shim.requests",),
    ("engine_shim.signer",),
    ("engine_shim.thirdparty", "engine_shim.provider_module", "engine_shim.choice"),
    ("engine_shim.openssl_engine", "engine_shim.openssl_provider", "engine_shim.job", "engine_shim.operations"),
    ("engine_shim",),
    # Leaves: types and settings.
    (
        "tlsserver.addresses",
        "tlsserver.errors",
        "tlsserver.stats",
        "tlsserver.audience",
        "tlsserver.outgoing",
        "tlsserver.watch",
        "tlsserver.plain_answer",
    ),
    ("tlsserver.own_python",),
    ("tlsserver.client_certificate",),
    ("tlsserver.asking", "tlsserver.client_request"),
    ("tlsserver.jobs", "tlsserver.drains"),
    ("tlsserver.certificates",),
    ("tlsserver.ocsp",),
    ("tlsserver.config", "tlsserver.state", "tlsserver.wire", "tlsserver.protocols", "tlsserver.local_certificate"),
    # For the tests of others.
    ("tlsserver.testing",),
    # One connection: it knows neither selector nor clock.
    ("tlsserver.parking", "tlsserver.life", "tlsserver.flow", "tlsserver.site"),
    ("tlsserver.client_hello", "tlsserver.policy"),
    ("tlsserver.questions",),
    ("tlsserver.faults",),
    (
        "tlsserver.session",
        "tlsserver.context",
        "tlsserver.client_context",
        "tlsserver.connection",
        "tlsserver.transport",
    ),
    # What asyncio's frameworks take for contexts and connections of Python's ssl.
    ("tlsserver.asyncio.plain",),
    ("tlsserver.asyncio.asked",),
    ("tlsserver.asyncio.identities",),
    ("tlsserver.asyncio.changing",),
    ("tlsserver.asyncio.verification", "tlsserver.asyncio.negotiation", "tlsserver.asyncio.refused"),
    ("tlsserver.asyncio.context", "tlsserver.asyncio.ssl_object"),
    # Keys that are elsewhere.
    ("tlsserver.signers.breaker", "tlsserver.signers.base", "tlsserver.signers.seldom"),
    ("tlsserver.signers.callable_calls",),
    ("tlsserver.signers.callable_threads", "tlsserver.signers.callable_tasks"),
    ("tlsserver.signers.callable",),
    ("tlsserver.signers.load",),
    ("tlsserver.signers.pkcs11_uri", "tlsserver.signers.pkcs11_pin"),
    ("tlsserver.signers.pkcs11_paths",),
    ("tlsserver.signers.pkcs11_functions",),
    ("tlsserver.signers.pkcs11_module",),
    ("tlsserver.signers.pkcs11_mechanism", "tlsserver.signers.pkcs11_token"),
    ("tlsserver.signers.pkcs11_key",),
    ("tlsserver.signers.pkcs11_session",),
    ("tlsserver.signers.pkcs11",),
    ("tlsserver.signers.keyless_ops",),
    ("tlsserver.signers.keyless",),
    ("tlsserver.signers.remote_address", "tlsserver.signers.remote_tls", "tlsserver.signers.remote_numbers"),
    ("tlsserver.signers.remote_connect", "tlsserver.signers.remote_stream", "tlsserver.signers.remote_job"),
    ("tlsserver.signers.remote_link",),
    ("tlsserver.signers.remote_peer",),
    ("tlsserver.signers.remote_pool",),
    ("tlsserver.signers.remote", "tlsserver.signers.child"),
    ("tlsserver.signers.isolated",),
    ("tlsserver.signers",),
    # The loop.
    ("tlsserver.registration", "tlsserver.selector", "tlsserver.timers", "tlsserver.wakeup", "tlsserver.reactor"),
    ("tlsserver.signals", "tlsserver.nested"),
    ("tlsserver.listener", "tlsserver.waitfds", "tlsserver.turns", "tlsserver.job_line"),
    ("tlsserver.loop_engines", "tlsserver.driver"),
    ("tlsserver.offers",),
    # Under the servers of others.
    ("tlsserver.integrations.environ", "tlsserver.integrations.mailbox", "tlsserver.integrations.engine_thread"),
    ("tlsserver.integrations.blocking_handshake", "tlsserver.integrations.twisted_loop"),
    ("tlsserver.integrations.handshake_settings",),
    ("tlsserver.integrations.cheroot_socket", "tlsserver.integrations.twisted_hub"),
    ("tlsserver.integrations.twisted_handshake",),
    ("tlsserver.integrations.twisted_connection",),
    ("tlsserver.integrations.cheroot", "tlsserver.integrations.twisted"),
    ("tlsserver.integrations",),
    # Where loop, TLS and protocol meet.
    ("tlsserver.signers.keyserver_stream", "tlsserver.signers.keyserver_process"),
    ("tlsserver.signers.keyserver_local",),
    ("tlsserver.service", "tlsserver.engine_sums"),
    ("tlsserver.signers.keyserver",),
    ("tlsserver.server", "tlsserver.reload"),
    # The same on asyncio's loops.
    ("tlsserver.asyncio.errors", "tlsserver.asyncio.sockets", "tlsserver.asyncio.reactor"),
    ("tlsserver.asyncio.contexts", "tlsserver.asyncio.audience", "tlsserver.asyncio.home"),
    ("tlsserver.asyncio.transport", "tlsserver.asyncio.terms"),
    ("tlsserver.asyncio.endpoint",),
    ("tlsserver.asyncio.server",),
    ("tlsserver.asyncio.listen",),
    ("tlsserver.asyncio.upgrade",),
    ("tlsserver.asyncio.client",),
    ("tlsserver.asyncio.loops", "tlsserver.asyncio.streams"),
    ("tlsserver.asyncio",),
    # The same for loops of tasks.
    ("tlsserver.task_loop",),
    ("tlsserver.task_stream",),
    ("tlsserver.task_face",),
    ("tlsserver.trio",),
    ("tlsserver.anyio",),
    # Under the servers of others that run on them.
    ("tlsserver.integrations.asgi",),
    ("tlsserver.integrations.uvicorn", "tlsserver.integrations.hypercorn", "tlsserver.integrations.aiohttp"),
    # The load generator: beside the server, not on it.
    ("tlsserver.bench.settings", "tlsserver.bench.addresses", "tlsserver.bench.failures", "tlsserver.bench.answer"),
    ("tlsserver.bench.client", "tlsserver.bench.tally", "tlsserver.bench.report"),
    ("tlsserver.bench.load", "tlsserver.bench.plot"),
    ("tlsserver.bench.crew",),
    ("tlsserver.bench",),
    # The probe: a client as well.
    ("tlsserver.probe.offer",),
    ("tlsserver.probe.client",),
    ("tlsserver.probe.survey",),
    ("tlsserver.probe.report",),
    ("tlsserver.probe",),
    ("tlsserver",),
    ("tlsserver.cli",),
    ("tlsserver.__main__",),
)

# Who may touch pyOpenSSL's objects.
PYOPENSSL = (
    "tlsserver.session",
    "tlsserver.context",
    "tlsserver.client_context",
    "tlsserver.asyncio.negotiation",
    "tlsserver.policy",
    "tlsserver.bench.client",
    "tlsserver.bench.load",
    "tlsserver.probe.client",
    "tlsserver.signers.remote_tls",
    "tlsserver.integrations",
)

# Who may call OpenSSL's ASYNC_*: what a job is, no other file has to know.
ASYNC_FILES = {
    *("pause.c", "async_ssl.c", "attach.c", "stacks.c", "ossl.def", "ossl_types.h"),
    *("runner.c", "runner.h", "job.c", "thread_jobs.c", "wait_context.c", "pause.h", "shim.h"),
}
ASYNC_OWN_NAMES = {"ASYNC_OFF", "ASYNC_HANDSHAKE", "ASYNC_IO"}  # of shim.h, not OpenSSL's

PYTHON_FILE_LINES = 400
C_FILE_LINES = 500
FUNCTION_LINES = 50

# Written in pieces, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile("|".join(["/ro" + "ot/", "/ho" + "me/", "/wo" + "rk/", "/tm" + r"p/\w", "/o" + "pt/"]))
TEXT = {
    ".py",
    ".c",
    ".h",
    ".def",
    ".md",
    ".toml",
    ".in",
    ".html",
    ".css",
    ".js",
    ".svg",
    ".cfg",
    ".txt",
    ".yml",
    "",
}  # ".ci/run" and "Makefile" have none


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the syntax trees: they are a quarter of a million objects, and later tests collect garbage."""
    yield
    source_tree.parsed.cache_clear()


def violations(found: Iterable[object]) -> None:
    """Fail with all that was found, one a line."""
    told = "\n".join(sorted(map(str, found)))
    assert not told, told


def layer(module: str) -> int:
    """Give the row of the longest name that stands for the module; -1 where there is none."""
    found = [
        (len(name), row)
        for row, names in enumerate(LAYERS)
        for name in names
        if module == name or ("." in name and module.startswith(f"{name}."))
    ]
    return max(found, default=(0, -1))[1]


def test_every_module_has_a_layer() -> None:
    violations(f"{module} stands in no row of LAYERS" for module in source_tree.modules() if layer(module) < 0)


def test_imports_go_downwards() -> None:
    violations(
        f"{module} imports {name}, which is in a higher layer"
        for module in source_tree.modules()
        for name in source_tree.our_imports(module)
        if layer(name) > layer(module) >= 0
    )


def test_no_import_cycles() -> None:
    graph = {module: source_tree.our_imports(module) for module in source_tree.modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def users(package: str, used: str) -> set[str]:
    """Name the modules of a package that import anything of another one."""
    names = [name for name in source_tree.modules() if name.split(".")[0] == package]
    return {name for name in names if any(one.split(".")[0] == used for one in source_tree.imports(name))}


def test_engine_shim_knows_nothing_of_tlsserver() -> None:
    violations(users("engine_shim", "tlsserver"))


def test_who_touches_pyopenssl() -> None:
    violations(
        name
        for name in users("tlsserver", "OpenSSL")
        if not f"{name}.".startswith(tuple(f"{one}." for one in PYOPENSSL))
    )


def test_length_of_files() -> None:
    limits = {".py": PYTHON_FILE_LINES, ".c": C_FILE_LINES, ".h": C_FILE_LINES, ".def": C_FILE_LINES}
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in source_tree.files(*limits)}
    violations(f"{relative(path)}: {lines} lines" for path, lines in lengths.items() if lines >= limits[path.suffix])


def test_length_of_functions() -> None:
    lengths = [
        (path, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path in source_tree.files(".py")
        for node in ast.walk(source_tree.parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths += [
        (path, function.name, len(function.lines))
        for path in source_tree.files(".c", ".h")
        for function in source_tree.c_functions(path)
    ]
    violations(f"{relative(path)}: {name}: {lines} lines" for path, name, lines in lengths if lines > FUNCTION_LINES)


def test_no_conditions_of_the_preprocessor_in_functions() -> None:
    """A variant is a file."""
    violations(
        f"{relative(path)}: {function.name}: {line.strip()}"
        for path in source_tree.files(".c", ".h")
        for function in source_tree.c_functions(path)
        for line in function.lines
        if re.match(r"\s*#\s*(if|el|endif)", line)
    )


def test_who_knows_jobs() -> None:
    violations(
        f"{relative(path)}: {name}"
        for path in source_tree.files(".c", ".h", ".def")
        if path.name not in ASYNC_FILES and relative(path).startswith("engine_shim/")
        for name in re.findall(r"\bASYNC_\w+", source_tree.without_comments(path.read_text(encoding="utf-8")))
        if name not in ASYNC_OWN_NAMES
    )


def test_functions_are_seen_in_c() -> None:
    """A parser that sees nothing would let everything pass."""
    seen = {one.name: len(one.lines) for one in source_tree.c_functions(ROOT / "engine_shim" / "csrc" / "ossl.c")}
    assert seen == {"ossl_count": 3, "ossl_name": 3, "ossl_is_required": 3, "ossl_address": 5, "ossl_bind": 3}


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_tests_do_not_sleep() -> None:
    violations(
        f"{relative(path)}:{node.lineno}"
        for path in source_tree.files(".py")
        if relative(path).startswith("tests/")
        for node in ast.walk(source_tree.parsed(path))
        if isinstance(node, ast.Call) and called_name(node) == "sleep"
    )


def needs_test(path: Path) -> bool:
    """Tell whether a file is a source with code of its own: one that only re-exports has none."""
    if relative(path).split("/")[0] not in source_tree.PACKAGES:
        return False
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return path.suffix == ".c" or any(isinstance(node, kinds) for node in ast.walk(source_tree.parsed(path)))


def is_tested(path: Path) -> bool:
    is_package = path.stem == "__init__"
    stem = path.parent.name if is_package else path.stem.strip("_")
    folder = path.parents[1].name if is_package else path.parent.name
    names = [f"test_{stem}.py", f"test_{folder}_{stem}.py", f"c/test_{stem}.c"]
    names += [test for pattern, test in COVERED_BY.items() if fnmatchcase(relative(path), pattern)]
    return any((ROOT / "tests" / name).exists() for name in names)


def test_every_source_has_a_test() -> None:
    sources = [path for path in source_tree.files(".py", ".c") if needs_test(path)]
    violations(f"{relative(path)}: no test, and no row in COVERED_BY" for path in sources if not is_tested(path))


def test_rows_are_in_use() -> None:
    existing = {relative(path) for path in source_tree.files()}
    violations(pattern for pattern in COVERED_BY if not any(fnmatchcase(name, pattern) for name in existing))
    violations({f"tests/{name}" for name in COVERED_BY.values()} - existing)


def test_no_machine_paths() -> None:
    violations(
        f"{relative(path)}: {found}"
        for path in source_tree.files(*TEXT)
        for found in MACHINE_PATHS.findall(path.read_text(encoding="utf-8"))
    )
