"""The load on a server: `tlsserver bench` in a process of its own, on a core of its own.

What is measured is a full handshake with an orderly end: the client connects, shakes hands, says goodbye at once
(close_notify and FIN) and waits for the server's end. There is no request, so that no HTTP is compared. When the time
is over, what is in progress is finished, so the server has worked for nothing that is not counted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.peers.crowd import CIPHERS, GROUP, GROUPS
from benchmarks.peers.processes import pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

CIPHERSUITE = "TLS_AES_256_GCM_SHA384"
SUITES = {"1.2": set(CIPHERS.split(":")), "1.3": {CIPHERSUITE}}
LONGEST = 60  # seconds that a load may be told to take
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
    suites = ["--ssl-groups", GROUPS[tls], "--ssl-ciphers", CIPHERS, "--ssl-ciphersuites", CIPHERSUITE]
    numbers = ["--concurrency", str(concurrency), "--duration", str(seconds), "--timeout", str(HANDSHAKE_TIMEOUT)]
    return [sys.executable, "-m", "tlsserver", "bench", where, "--tls", tls, *numbers, *suites, "--json"]


@contextlib.contextmanager
def started(
    address: tuple[str, int], tls: str, concurrency: int, seconds: float, core: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Begin to load a server; at the end it is stopped, if it was not waited for.

    Args:
        address: Of the server.
        tls: "1.2" or "1.3".
        concurrency: Connections in progress at any time.
        seconds: After which no new one begins.
        core: Of the client; None: any.

    Yields:
        The generator's process, for `finished`.
    """
    command = pinned(_command(address, tls, concurrency, seconds), core)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(process: subprocess.Popen[str], tls: str) -> Load:
    """Wait for the end of a load.

    Raises:
        RuntimeError: No handshake was done, one was not full, or it was not done with what was to be compared.
        subprocess.TimeoutExpired: It does not end.
    """
    told, complaint = process.communicate(timeout=LONGEST + 2 * HANDSHAKE_TIMEOUT)
    if not told:
        raise RuntimeError(f"the load did not run: {complaint.strip()}")
    return checked(json.loads(told), tls)


def run(address: tuple[str, int], tls: str, concurrency: int, seconds: float, core: int | None) -> Load:
    """Load a server and wait for the end: arguments of `started`, result and errors of `finished`."""
    with started(address, tls, concurrency, seconds, core) as process:
        return finished(process, tls)


def checked(told: dict[str, Any], tls: str) -> Load:
    """Take what the generator tells, if it is what was to be measured."""
    if not told["handshakes"]:
        raise RuntimeError(f"no handshake was done: {told['errors']}")
    if told["resumed"]:
        raise RuntimeError(f"{told['resumed']} handshakes were resumed: only full ones are compared")
    if told["cipher"] not in SUITES[tls]:
        raise RuntimeError(f"cipher {told['cipher']} was chosen: it is not the one to be compared")
    if (told["group"] or GROUP).lower() != GROUP.lower():  # some OpenSSL does not tell
        raise RuntimeError(f"group {told['group']} was chosen: it is not the one to be compared")
    cpu = told["client_cpu_us_per_handshake"] * told["handshakes"] / 1e6
    return Load(told["handshakes"], told["errors"], told["seconds"], cpu)
