"""CPython's own tests of asyncio's TLS pass with our contexts, or stand in a table with the reason.

A test without a row has to pass, and to have used a context of ours; one with a row has to show that it needs the row.
Two configurations run always, all four with ``-m stress``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
import uvloop

from support import cpython_suite
from support.cpython_suite import ROWS, SERVERS, Configuration, row_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _pytest.mark.structures import ParameterSet

if importlib.util.find_spec("test.test_asyncio") is None:
    pytest.skip("this Python comes without its tests", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the suite has its own idea of them
]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
# The version whose list of tests the table was made with.
TABLE_OF = (3, 11)


def cases() -> Iterator[ParameterSet]:
    for loop in LOOPS:
        for clients in (True, False):
            marks = [] if (loop == "asyncio") is clients else [pytest.mark.stress]
            ends = "both" if clients else "servers"
            for name in cpython_suite.names() if clients else cpython_suite.names(SERVERS):
                yield pytest.param(loop, clients, name, id=f"{loop}-{ends}-{name}", marks=marks)


@pytest.mark.parametrize(("loop", "clients", "name"), list(cases()))
def test_of_cpython(loop: str, clients: bool, name: str) -> None:
    row = row_of(name)
    if row is not None and row.sign:
        assert row.sign in source_of(name)
        return
    configuration = Configuration(LOOPS[loop], clients=clients)
    result = cpython_suite.run(name, configuration)
    if result.skipped:
        pytest.skip(result.skipped[0][1])
    told = "\n".join(text for _, text in result.errors + result.failures)
    if row is not None and row.fails_with and (clients or loop == "uvloop"):
        assert re.search(row.fails_with, told), f"it needs no row any more, or another one: {told}"
    else:
        assert not told, told
        assert bool(configuration.handed) is (row is None or bool(row.fails_with)), configuration.handed


@pytest.mark.skipif(sys.version_info[:2] != TABLE_OF, reason="the table was made with another Python's tests")
def test_rows_are_of_tests_that_exist() -> None:
    names = cpython_suite.names()
    patterns = (*ROWS, *SERVERS)
    assert [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)] == []
