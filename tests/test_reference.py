"""docs/reference-async.md has a row for everything that OpenSSL's <openssl/async.h> declares, and each row is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

import engine_shim

ROOT = Path(__file__).parent.parent
HEADER = Path("/usr/include/openssl/async.h")

# ASYNC_WAIT_CTX_new(3) and ASYNC_start_job(3) of OpenSSL 4.0.
FUNCTIONS = {
    *(f"ASYNC_WAIT_CTX_{name}" for name in ("new", "free", "set_wait_fd", "get_fd", "get_all_fds", "get_changed_fds")),
    *(f"ASYNC_WAIT_CTX_{name}" for name in ("clear_fd", "set_callback", "get_callback", "set_status", "get_status")),
    *("ASYNC_callback_fn", "ASYNC_init_thread", "ASYNC_cleanup_thread", "ASYNC_start_job", "ASYNC_pause_job"),
    *("ASYNC_get_current_job", "ASYNC_get_wait_ctx", "ASYNC_block_pause", "ASYNC_unblock_pause", "ASYNC_is_capable"),
    *("ASYNC_stack_alloc_fn", "ASYNC_stack_free_fn", "ASYNC_set_mem_functions", "ASYNC_get_mem_functions"),
}


class Row(NamedTuple):
    openssl: str
    python: str
    behaviour: str
    since: str
    test: str


def rows() -> list[Row]:
    lines = (ROOT / "docs" / "reference-async.md").read_text(encoding="utf-8").splitlines()
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [Row(*cells) for cells in tables if cells[0] not in ("OpenSSL", "---")]


def test_every_function_has_a_row() -> None:
    named = {name for row in rows() for name in re.findall(r"ASYNC_\w+", row.openssl)}
    assert named == FUNCTIONS


@pytest.mark.skipif(not HEADER.exists(), reason="OpenSSL's headers (libssl-dev) are not installed")
def test_the_header_declares_no_more() -> None:
    declared = set(re.findall(r"\b(ASYNC_\w+)\)?\s*\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)))
    assert declared <= FUNCTIONS
    assert len(declared) > 15


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.openssl.strip("`"))
def test_the_test_of_a_row_exists(row: Row) -> None:
    found = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", row.test)
    assert found
    assert f"def {found[2]}(" in (ROOT / "tests" / found[1]).read_text(encoding="utf-8")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.openssl.strip("`"))
def test_the_names_of_a_row_exist(row: Row) -> None:
    for name in re.findall(r"\b([A-Za-z_]\w*)\(", row.python):
        owners = [engine_shim, engine_shim.WaitContext, engine_shim.Job]
        assert any(hasattr(owner, name) for owner in owners) or name == "cleanup", name
