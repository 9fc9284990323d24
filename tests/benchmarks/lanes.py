"""Costs of the lanes, and whether their time depends on secrets: builds and runs tests/benchmarks/lanes.c.

Usage: python tests/benchmarks/lanes.py [SECONDS]: for each comparison (5; docs/security-of-batches.md has a longer run).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "5"
    made = subprocess.run(
        ["make", "--silent", "build/lanes/lanes", f"MB_PYTHON={sys.executable}"], cwd=ROOT, check=False
    )
    if made.returncode != 0:
        sys.exit("lanes.py: build/lanes/lanes does not build: make said why, above")
    for arguments in (["cost"], ["timing", seconds]):
        done = subprocess.run([ROOT / "build" / "lanes" / "lanes", *arguments], check=False)
        if done.returncode != 0:
            sys.exit(f"lanes.py: lanes {arguments[0]} ended with {done.returncode}: what failed stands above")


if __name__ == "__main__":
    main()
