"""Fuzz the keyless decoder: whatever bytes come, it makes of them what a second, plain decoder does.

    python tests/fuzz/keyless.py [-max_total_time=SECONDS] [-runs=CASES] FOLDER...

The flags are libFuzzer's. The first folder gets what is found on the way, the others are only read;
tests/fuzz/keyless-seeds is what has been found before. `make fuzz` runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["tlsserver"]):  # it takes whole packages only
    from support.keyless_reference import check_body, check_stream


def one_input(data: bytes) -> None:
    """Take the data for a stream, and for the body of a frame."""
    check_stream(data)
    check_body(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
