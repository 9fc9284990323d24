"""Fixtures that all tests share, and how they share the machine when pytest-xdist runs several at once."""

from __future__ import annotations

import fcntl
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support import leaks
from support.certificates import Certificates, Identity

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import engine_shim
    from support.client_scene import House
    from support.naming import Desk
    from support.running import Clock
    from support.softhsm import SoftHsm

# A lock of the kernel: a worker that dies has let go of it. It stays open as long as the process.
_MACHINE = os.open(__file__, os.O_RDONLY)


def pytest_report_header() -> list[str]:
    try:
        import engine_shim  # noqa: PLC0415 - a broken build must not hide the report

        linkage = engine_shim.attach()
    except Exception as error:  # noqa: BLE001 - a line of the header, whatever it is
        return [f"engine_shim: {type(error).__name__}: {error}"]
    notes = "".join(f"; {note}" for note in linkage.notes)
    return [f"engine_shim: {linkage.name} linkage, {linkage.openssl_version}, {linkage.path}{notes}"]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # tryfirst: waiting for its turn is no part of a test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test marked `serial` run while no other test does, whichever worker has it."""
    fcntl.flock(_MACHINE, fcntl.LOCK_EX if item.get_closest_marker("serial") else fcntl.LOCK_SH)
    try:
        return (yield)
    finally:
        fcntl.flock(_MACHINE, fcntl.LOCK_UN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones: workers take whole files in this order, and the last ones have to be short."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Leave out of garbage collections what was there before the module: other modules, tests, their reports.

    Hundreds of tests collect, most of them several times, to see what they left behind: a collection costs as much as
    there are objects to look at, and in a whole run these become hundreds of thousands.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Leaves by kind of key, as ``certificates["p256"]``; the kinds are ``support.certificates.KINDS``."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def ca(certificates: Certificates) -> Identity:
    """The authority that signed all leaves."""
    return certificates.ca


@pytest.fixture(scope="session")
def identity(certificates: Certificates) -> Identity:
    """The cheapest leaf to sign with, for tests of something else."""
    return certificates["p256"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every reactor: it goes on, and the test adds to it."""
    from support.running import Clock  # noqa: PLC0415 - imports what a broken build cannot

    return Clock(monkeypatch)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail when the test leaves file descriptors or threads behind: `pytest.mark.usefixtures("no_leaks")`."""
    before = leaks.holdings()
    yield
    complaint = leaks.complaint(before, leaks.settled(before))
    if complaint:
        pytest.fail(f"left behind: {complaint}")


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fail when the test leaves threads behind; wait fds may stay in their pool."""
    before = leaks.holdings()
    yield
    assert not leaks.more_threads(before, leaks.settled(before))


@pytest.fixture
def no_ops_left() -> Iterator[None]:
    """Fail when the test leaves ops, keys or jobs behind: `pytest.mark.usefixtures("no_ops_left")`."""
    import engine_shim  # noqa: PLC0415 - a broken build must not hide the report

    gc.collect()  # what a test before still holds
    before = engine_shim.counters()
    yield
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == before.ops_alive)
    after = engine_shim.counters()
    assert (after.ops_alive, after.keys_alive) == (before.ops_alive, before.keys_alive)
    assert after.jobs_started - before.jobs_started == after.jobs_finished - before.jobs_finished


@pytest.fixture
def jobs_end() -> Iterator[None]:
    """Fail when a job that was ever started has not ended after the test."""
    from support.running import check_jobs  # noqa: PLC0415 - a broken build must not hide the report

    yield
    check_jobs()


@pytest.fixture
def manual() -> Iterator[engine_shim.ManualEngine]:
    """An engine that performs when it is told to."""
    from engine_shim import ManualEngine  # noqa: PLC0415 - a broken build must not hide the report

    with ManualEngine() as engine:
        yield engine


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail when the test leaves anything of a server behind: `pytest.mark.usefixtures("nothing_left")`."""
    from helpers_server import check_nothing_left  # noqa: PLC0415 - as above

    gc.collect()  # what a test before still holds
    yield from check_nothing_left()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Authorities of clients, and what they have issued."""
    from support.client_scene import House  # noqa: PLC0415 - as above

    return House(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """Tokens of this process. The module reads where they are when it starts, and a process starts it once."""
    from support.softhsm import SoftHsm  # noqa: PLC0415 - as above

    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.variables.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(scope="session")
def web(softhsm: SoftHsm, certificates: Certificates) -> str:
    """The URI of a token with a key of each kind."""
    from support.softhsm import KINDS  # noqa: PLC0415 - as above

    return softhsm.token("web", *(certificates[kind] for kind in KINDS))


@pytest.fixture
def desk() -> Desk:
    """Where questions about ClientHellos lie until the test answers."""
    from support.naming import Desk  # noqa: PLC0415 - as above

    return Desk()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients that block."""
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[int]:
    """An fd to wait for."""
    read, write = os.pipe()
    yield read
    os.close(read)
    os.close(write)
