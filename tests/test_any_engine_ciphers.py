"""Pauses in reading, writing and shutting down: ciphers that pause. Each scenario is told in support/paused_io.py."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.paused_io import SCENARIOS
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.certificates import Certificates


@pytest.fixture(scope="module", params=["1.2", "1.3"])
def outcomes(request: pytest.FixtureRequest, certificates: Certificates) -> dict[str, str]:
    """Play all scenarios with one version of TLS, in one process."""
    identity = certificates["p256"]
    command = [sys.executable, "-m", "support.paused_io", request.param, identity.cert, identity.key, identity.ca]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    print(done.stderr)  # noqa: T201 - shown with a test that fails
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(outcomes: dict[str, str], scenario: str) -> None:
    assert outcomes.pop(scenario) == "ok"
