"""`tlsserver signer` as a process."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from support.keyserver_scene import digest_of, public_key, ski

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates
    from support.keyless_client import KeylessClient


class Signer:
    """A key server that runs, and has said all that it says at its start."""

    def __init__(self, *arguments: str | Path, **options: object) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "tlsserver", "signer", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload] # of Popen
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("  stop "):
                break
        else:
            pytest.fail(self.process.communicate()[1])

    @property
    def status(self) -> dict[str, str]:
        """What the kernel says of it (proc(5))."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))

    def wait_for(self, text: str) -> str:
        """Read the log up to a line that has this in it."""
        assert self.process.stderr is not None
        seen = ""
        for line in self.process.stderr:
            seen += line
            if text in line:
                return seen
        raise AssertionError(f"it never said {text!r}: {seen}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Give exit code, the rest of the output, and of the log."""
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=30)
        return self.process.returncode, *rest


@contextlib.contextmanager
def signing(*arguments: str | Path, **options: object) -> Iterator[Signer]:
    found = Signer(*arguments, **options)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.communicate()


def check(client: KeylessClient, certificates: Certificates) -> None:
    """Have something signed."""
    answer = client.ask(0x15, digest_of("SHA256"), ski(certificates, "p256"))
    scheme = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    public_key(certificates, "p256").verify(answer.payload, digest_of("SHA256"), scheme)
