"""A PKCS #11 token without hardware: SoftHSM2, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.certificates import Identity

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = b"1234"
KINDS = ("rsa2048", "rsa4096", "p256", "p384", "p521", "ed25519", "ed448")  # what Debian's SoftHSM2 2.6.1 has


class SoftHsm:
    """A folder with tokens. A process reads where it is, once, when the module starts.

    Args:
        folder: Empty, and ours.
    """

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")

    @property
    def variables(self) -> dict[str, str]:
        """What a process that uses it has in its environment."""
        return {"SOFTHSM2_CONF": str(self.configuration)}

    def token(self, label: str, *identities: Identity) -> str:
        """Make a token; keys are labelled with their kind, and numbered from 1 as ids.

        Returns:
            Its URI.
        """
        self._run("--init-token", "--free", "--label", label, "--so-pin", "87654321")
        for number, identity in enumerate(identities, 1):
            self.add(label, identity, number)
        return f"pkcs11:token={label}?module-path={MODULE}"

    def add(self, token: str, identity: Identity, number: int) -> None:
        """Import a key."""
        what = ("--label", identity.kind, "--id", f"{number:02x}")
        self._run("--import", str(identity.key), "--token", token, *what)

    def delete(self, label: str) -> None:
        """Delete a token."""
        subprocess.run(
            ["softhsm2-util", "--delete-token", "--token", label],
            check=True,
            capture_output=True,
            env=self.variables,
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            ["softhsm2-util", *arguments, "--pin", PIN.decode()], check=True, capture_output=True, env=self.variables
        )


class TokenProcess:
    """Tokens in a process of their own, behind a Unix socket: `p11-kit server`. A context manager.

    Args:
        softhsm: The tokens.
        label: Of the token that it gives away.
        folder: For the socket.

    Attributes:
        process: `p11-kit server`, or what it has become.
    """

    module = next((str(path) for path in Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so")), None)
    """The library that leads there; None: it is not installed."""

    def __init__(self, softhsm: SoftHsm, label: str, folder: Path) -> None:
        self._socket = folder / "p11"
        self._environment = {**os.environ, **softhsm.variables}
        address = f"unix:path={self._socket}"
        self._command = ["p11-kit", "server", "-f", "-n", address, "--provider", MODULE, f"pkcs11:token={label}"]
        self.variables = {"P11_KIT_SERVER_ADDRESS": address}

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self._socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=self._environment)
        assert self.process.stdout is not None
        assert any(line.startswith("P11_KIT_SERVER_PID") for line in self.process.stdout)

    def kill(self) -> None:
        """End it, and wait."""
        with self.process:
            self.process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
