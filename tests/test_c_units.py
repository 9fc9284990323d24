"""The C units under sanitizers: `make asan` and `make tsan`."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from support.source_tree import ROOT


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_units(sanitizer: str) -> None:
    done = subprocess.run(
        ["make", "--silent", sanitizer, f"MB_PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    units = {path.stem for path in (ROOT / "tests" / "c").glob("test_*.c")}
    assert {line.rpartition("/")[2] for line in done.stdout.splitlines() if "build/" in line} >= units
