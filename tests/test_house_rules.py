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
    ("engine_shim.errors", "engine_shim.paused", "engine_shim.linkage.refusal", "engine_shim.linkage.elf"),
    ("engine_shim._crypto_mb",),
    ("engine_shim.linkage.maps", "engine_shim.linkage.table"),
    ("engine_shim.linkage.module", "engine_shim.linkage.binding"),
    ("engine_shim.linkage.shared", "engine_shim.linkage.static", "engine_shim.linkage.proof"),
    ("engine_shim.linkage",),
    ("engine_shim.native",),
    ("engine_shim.questions", "engine_shim.loops"),
    ("engine_shim.base", "engine_shim.wait", "engine_shim.batches"),
    ("engine_shim.counters", "engine_shim.key", "engine_shim.async_ssl", "engine_shim._build"),
    ("engine_shim.key_exchange", "engine_shim.client_context", "engine_shim.server_context"),
    ("engine_shim.ticket_keys",),
    ("engine_shim.handshake_policy", "engine_shim.key_log"),
    ("engine_shim.clients",),
    ("engine_shim.peer",),
    ("engine_shim.identity", "engine_shim.server_names"),
    ("engine_shim.engine",),
    ("engine_shim.requests",),
    ("engine_shim.signer",),
    ("engine_shim.thirdparty", "engine_shim.provider_module", "engine_shim.choice"),
    ("engine_shim.openssl_engine", "engine_shim.openssl_provider", "engine_shim.job"),
    ("engine_shim",),
    # Leaves: types and settings.
    ("tlsserver.errors", "tlsserver.stats", "tlsserver.audience", "tlsserver.outgoing", "tlsserver.watch"),
    ("tlsserver.client_certificate",),
    ("tlsserver.asking", "tlsserver.client_request"),
    ("tlsserver.jobs", "tlsserver.drains"),
    ("tlsserver.certificates",),
    ("tlsserver.ocsp",),
    ("tlsserver.config", "tlsserver.state", "tlsserver.wire", "tlsserver.protocols", "tlsserver.local_certificate"),
    # For the tests of others.
    ("tlsserver.testing",),
    # Who performs ops outside of this process.
    ("tlsserver.signers.keyless_ops",),
    ("tlsserver.signers.keyless",),
    ("tlsserver.signers",),
    # One connection: it knows neither selector nor clock.
    ("tlsserver.parking", "tlsserver.life", "tlsserver.flow", "tlsserver.site"),
    ("tlsserver.client_hello", "tlsserver.policy"),
    ("tlsserver.questions",),
    ("tlsserver.faults",),
    ("tlsserver.session", "tlsserver.context", "tlsserver.connection", "tlsserver.transport"),
    # Keys that are elsewhere.
    ("tlsserver.signers.breaker", "tlsserver.signers.base"),
    ("tlsserver.signers",),
    # The loop.
    ("tlsserver.registration", "tlsserver.selector", "tlsserver.timers", "tlsserver.wakeup", "tlsserver.reactor"),
    ("tlsserver.signals",),
    ("tlsserver.listener", "tlsserver.waitfds", "tlsserver.turns", "tlsserver.driver"),
    # Where loop, TLS and protocol meet.
    ("tlsserver.service", "tlsserver.engine_sums"),
    ("tlsserver.server", "tlsserver.reload"),
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
    "tlsserver.policy",
    "tlsserver.bench.client",
    "tlsserver.bench.load",
    "tlsserver.probe.client",
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

# Sources without a test of their own (tests/test_<source>.py, test_<package>_<source>.py or c/test_<source>.c), and the
# test that covers them. Files of re-exports need none.
COVERED_BY = {
    "tlsserver/faults.py": "test_session.py",
    "tlsserver/asking.py": "test_job_stack.py",
    # Server names.
    "tlsserver/policy/files.py": "test_certificates.py",
    "tlsserver/client_hello.py": "test_certificates_on_demand.py",
    "tlsserver/questions.py": "test_certificates_on_demand.py",
    "tlsserver/policy/certificate.py": "test_certificates.py",
    "tlsserver/policy/server_names.py": "test_certificates.py",
    "engine_shim/csrc/hello.c": "test_server_names.py",
    "engine_shim/csrc/names.c": "c/test_names.c",
    "engine_shim/csrc/identities.c": "c/test_names.c",
    "engine_shim/csrc/context_data.c": "test_context.py",
    "engine_shim/csrc/session_id.c": "test_context.py",
    # Profiles, suites, groups, signature algorithms, limits of sessions.
    "engine_shim/handshake_policy.py": "test_negotiation.py",
    "engine_shim/csrc/handshake_policy.c": "test_negotiation.py",
    "tlsserver/policy/profiles.py": "test_negotiation.py",
    "tlsserver/policy/session_limits.py": "test_negotiation.py",
    "engine_shim/server_context.py": "test_context.py",
    "tlsserver/policy/*.py": "test_context.py",
    "engine_shim/clients.py": "test_clients.py",
    "engine_shim/csrc/clients.c": "test_clients.py",
    "engine_shim/csrc/peer_chain.c": "test_client_certificate.py",
    "engine_shim/csrc/client_hook.c": "test_questions.py",
    "tlsserver/cli/tls_options.py": "test_cli_serve.py",
    "tlsserver/cli/gen_ticket_keys.py": "test_ticket_files.py",
    "engine_shim/__init__.py": "test_async_ssl.py",  # what it does at exit
    "engine_shim/_build.py": "test_extension.py",
    "engine_shim/_crypto_mb.py": "test_crypto_mb.py",
    "engine_shim/base.py": "test_engine.py",
    "engine_shim/batches.py": "test_engine.py",
    "engine_shim/csrc/costs.c": "test_engine.py",
    "engine_shim/counters.py": "test_async_ssl.py",
    "engine_shim/errors.py": "test_key.py",
    "engine_shim/native.py": "test_key.py",
    "engine_shim/paused.py": "test_async_ssl.py",
    "engine_shim/linkage/binding.py": "test_linkage.py",
    "engine_shim/linkage/maps.py": "test_linkage.py",
    "engine_shim/linkage/module.py": "test_linkage_static.py",
    "engine_shim/linkage/proof.py": "test_linkage.py",
    "engine_shim/linkage/refusal.py": "test_linkage.py",
    "engine_shim/linkage/table.py": "test_linkage.py",
    # Key pairs made ahead.
    "engine_shim/csrc/kx_context.c": "test_key_exchange.py",
    "engine_shim/csrc/kx_provider.c": "test_key_exchange.py",
    "engine_shim/csrc/attach.c": "test_linkage.py",
    "engine_shim/csrc/callbacks.c": "test_async_ssl.py",
    "engine_shim/csrc/common.c": "c/test_engine.c",
    "engine_shim/csrc/engine_*.c": "test_engine_contract.py",
    "engine_shim/csrc/errors.c": "test_key.py",
    "engine_shim/csrc/evp.c": "test_key.py",
    "engine_shim/csrc/fork.c": "c/test_engine.c",
    "engine_shim/csrc/key_*.c": "test_key.py",
    "engine_shim/csrc/runner.c": "test_async_ssl.py",
    "engine_shim/csrc/keymgmt.c": "test_key.py",
    "engine_shim/csrc/op.c": "c/test_engine.c",
    "engine_shim/csrc/password.c": "test_key.py",
    "engine_shim/csrc/pause.c": "test_engine_contract.py",
    "engine_shim/csrc/perform.c": "test_engine_contract.py",
    "engine_shim/csrc/provider.c": "test_key.py",
    "engine_shim/csrc/sign.c": "test_engine_contract.py",
    "engine_shim/csrc/decrypt.c": "test_key.py",
    "engine_shim/csrc/stacks.c": "test_linkage.py",
    "engine_shim/csrc/wake.c": "c/test_engine.c",
    # What is computed in lanes.
    "engine_shim/csrc/mb_*.c": "c/test_mb.c",
    "engine_shim/csrc/batch_*.c": "c/test_batch.c",
    "engine_shim/csrc/digests.c": "c/test_batch.c",
    "engine_shim/csrc/rsa_encode.c": "c/test_batch.c",
    "engine_shim/csrc/batch.c": "c/test_mb.c",
    # The scripted provider and what loads it.
    "engine_shim/provider_module.py": "test_openssl_provider.py",
    "engine_shim/csrc/openssl_provider.c": "test_openssl_provider.py",
    "tlsserver/testing/control.py": "test_testing_headers.py",
    "tlsserver/audience.py": "test_connection.py",
    "tlsserver/config.py": "test_server_life.py",
    "tlsserver/driver.py": "test_service.py",
    "tlsserver/engine_sums.py": "test_server.py",
    "tlsserver/registration.py": "test_reactor_faults.py",
    "tlsserver/wakeup.py": "test_reactor.py",
    "tlsserver/signals.py": "test_server_life.py",
    "tlsserver/cli/__init__.py": "test_bad_input.py",
    "tlsserver/cli/checks.py": "test_cli_doctor.py",
    "tlsserver/cli/offload.py": "test_cli_serve.py",
    "tlsserver/cli/params.py": "test_cli_serve.py",
    "tlsserver/cli/problems.py": "test_cli_serve.py",
    # The load generator.
    "tlsserver/bench/client.py": "test_bench_load.py",
    "tlsserver/bench/failures.py": "test_bench_load.py",
    "tlsserver/bench/report.py": "test_cli_bench.py",
    "tlsserver/bench/settings.py": "test_bench_load.py",
    "tlsserver/cli/version.py": "test_cli_doctor.py",
    # The probe.
    "tlsserver/probe/*.py": "test_cli_probe.py",
    "tlsserver/errors.py": "test_connection.py",
    # Signers.
    "tlsserver/signers/keyless_ops.py": "test_keyless.py",
    "tlsserver/flow.py": "test_connection.py",
    "tlsserver/life.py": "test_connection.py",
    "tlsserver/outgoing.py": "test_connection.py",
    "tlsserver/transport.py": "test_connection.py",
    "tlsserver/watch.py": "test_connection.py",
    "tlsserver/wire.py": "test_connection.py",
    "tlsserver/protocols/base.py": "test_echo.py",
    "tlsserver/protocols/deadline.py": "test_http1.py",
    "tlsserver/protocols/messages.py": "test_http1.py",
    "tlsserver/protocols/stream.py": "test_http1.py",
    "tlsserver/site/*.py": "test_site.py",
}

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
