from __future__ import annotations

import pytest

from engine_shim import linkage
from engine_shim.errors import LinkageError
from engine_shim.linkage import table
from engine_shim.native import ffi, lib


def test_find_gives_what_the_table_has() -> None:
    names = ["SSL_read", "SSL_write_ex", "ASYNC_pause_job"]
    found = linkage.find(names)
    assert sorted(found) == sorted(names)
    rows = {row.name: index for index, row in enumerate(table.load().rows())}
    assert found["SSL_read"] == int(ffi.cast("uintptr_t", lib.ossl_address(rows["SSL_read"])))


def test_find_refuses_a_name_that_is_not_there() -> None:
    with pytest.raises(LinkageError, match="SSL_no_such_function"):
        linkage.find(["SSL_read", "SSL_no_such_function"])
