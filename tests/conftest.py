"""Fixtures that all tests share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from support import leaks
from support.certificates import Certificates, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_report_header() -> list[str]:
    try:
        import engine_shim  # noqa: PLC0415 - a broken build must not hide the report

        linkage = engine_shim.attach()
    except Exception as error:  # noqa: BLE001 - a line of the header, whatever it is
        return [f"engine_shim: {type(error).__name__}: {error}"]
    notes = "".join(f"; {note}" for note in linkage.notes)
    return [f"engine_shim: {linkage.name} linkage, {linkage.openssl_version}, {linkage.path}{notes}"]


@pytest.fixture(scope="session", autouse=True)
def frozen() -> Iterator[None]:
    """Leave out of garbage collections what lives as long as the session: the modules and the tests themselves.

    Hundreds of tests collect, most of them several times, to see what they left behind: a collection costs as much as
    there are objects to look at, and these are a hundred thousand.
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


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail when the test leaves file descriptors or threads behind: `pytest.mark.usefixtures("no_leaks")`."""
    before = leaks.holdings()
    yield
    complaint = leaks.complaint(before, leaks.settled(before))
    if complaint:
        pytest.fail(f"left behind: {complaint}")
