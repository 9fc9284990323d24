"""The load on a server: `tlsserver bench` in a process of its own, on a core of its own.

What is measured is a full handshake with an orderly end: the client connects, shakes hands, says goodbye at once
(close_notify and FIN) and waits for the server's end. There is no request, so that no HTTP is compared. When the time
is over, what is in progress is finished, so the server has worked for nothing that is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.crowd import CIPHERS, GROUP
from benchmarks.peers.processes import pinned

CIPHERSUITE = "TLS_AES_256_GCM_SHA384"
SUITES = {"1.2": set(CIPHERS.split(":")), "1.3": {CIPHERSUITE}}
HANDSHAKE_TIMEOUT = 60  # seconds: 512 signatures of RSA-4096 take a tenth of it


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Attributes:
        handshakes: Full ones, finished.
        errors: Failed connections by kind.
        seconds: From the first connection to the end of the last.
        cpu: Seconds of the client's CPU time, user and system.
    """

    handshakes: int
    errors: dict[str, int]
    seconds: float
    cpu: float


def _command(address: tuple[str, int], tls: str, concurrency: int, seconds: float) -> list[str]:
    where = f"{address[0]}:{address[1]}"
    suites = ["--ssl-groups", GROUP, "--ssl-ciphers", CIPHERS, "--ssl-ciphersuites", CIPHERSUITE]
    numbers = ["--concurrency", str(concurrency), "--duration", str(seconds), "--timeout", str(HANDSHAKE_TIMEOUT)]
    return [sys.executable, "-m", "tlsserver", "bench", where, "--tls", tls, *numbers, *suites, "--json"]


def run(address: tuple[str, int], tls: str, concurrency: int, seconds: float, core: int | None) -> Load:
    """Load a server.

    Args:
        address: Of the server.
        tls: "1.2" or "1.3".
        concurrency: Connections in progress at any time.
        seconds: After which no new one begins.
        core: Of the client; None: any.

    Raises:
        RuntimeError: No handshake was done, one was not full, or it was not done with what was to be compared.
    """
    command = pinned(_command(address, tls, concurrency, seconds), core)
    limit = seconds + 2 * HANDSHAKE_TIMEOUT
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    if not done.stdout:
        raise RuntimeError(f"the load did not run: {done.stderr.strip()}")
    return checked(json.loads(done.stdout), tls)


def checked(told: dict[str, Any], tls: str) -> Load:
    """Take what the generator tells, if it is what was to be measured."""
    if not told["handshakes"]:
        raise RuntimeError(f"no handshake was done: {told['errors']}")
    if told["resumed"]:
        raise RuntimeError(f"{told['resumed']} handshakes were resumed: only full ones are compared")
    if told["cipher"] not in SUITES[tls]:
        raise RuntimeError(f"cipher {told['cipher']} was chosen: it is not the one to be compared")
    cpu = told["client_cpu_us_per_handshake"] * told["handshakes"] / 1e6
    return Load(told["handshakes"], told["errors"], told["seconds"], cpu)
