"""Tokens behind p11-kit: in another process, and by a module that gives everybody functions of his own."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from engine_shim import OperationFailedError
from support import apart
from support.core import family
from support.softhsm import PIN, SoftHsm, TokenProcess
from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11 import Pkcs11Signer
from tlsserver.signers.pkcs11_functions import OwnFunctions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates

pytestmark = pytest.mark.skipif(TokenProcess.module is None, reason="p11-kit's client module is not installed")

URI = f"pkcs11:token=far?module-path={TokenProcess.module}"


@pytest.fixture
def far(tmp_path: Path, certificates: Certificates) -> Iterator[TokenProcess]:
    softhsm = SoftHsm(tmp_path)
    softhsm.token("far", certificates["p256"])
    with TokenProcess(softhsm, "far", tmp_path) as process:
        yield process


def sign(certificate: str) -> None:
    with Pkcs11Signer(URI, pin=PIN) as signer:
        key = signer.load_key(certificate)
        assert isinstance(signer._token.module._functions, OwnFunctions)
        with ThreadPoolExecutor(8) as pool:
            signatures = list(pool.map(lambda number: key.sign(b"%d" % number), range(40)))
        assert len(set(signatures)) == 40
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed) == (40, 0)


def test_signatures_of_several_threads(far: TokenProcess, certificates: Certificates) -> None:
    apart.run(sign, certificates["p256"].cert, variables=far.variables)


def be_refused(certificate: str) -> None:
    for _ in range(2):
        signer = Pkcs11Signer(URI, pin=b"9999")
        with signer, pytest.raises(ConfigurationError, match="does not let us in: the PIN is wrong"):
            signer.load_key(certificate)


def test_wrong_pin(far: TokenProcess, certificates: Certificates) -> None:
    apart.run(be_refused, certificates["p256"].cert, variables=far.variables)


def be_refused_with_what_is_no_text(certificate: str) -> None:
    signer = Pkcs11Signer(URI, pin=b"\xff\xfe")
    with signer, pytest.raises(ConfigurationError, match="the PIN has characters that it does not take"):
        signer.load_key(certificate)


def test_pin_that_is_no_text(far: TokenProcess, certificates: Certificates) -> None:
    apart.run(be_refused_with_what_is_no_text, certificates["p256"].cert, variables=far.variables)


def sign_in_a_child(certificate: str) -> None:
    with Pkcs11Signer(URI, pin=PIN) as signer:
        key = signer.load_key(certificate)
        key.sign(b"text")
        if (child := os.fork()) == 0:
            code = 1
            try:
                key.sign(b"text")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        key.sign(b"text")


def test_after_a_fork(far: TokenProcess, certificates: Certificates) -> None:
    apart.run(sign_in_a_child, certificates["p256"].cert, variables=far.variables)


def lose(certificate: str, pid: str) -> None:
    with Pkcs11Signer(URI, pin=PIN, deadline=0.5) as signer:
        key = signer.load_key(certificate)
        key.sign(b"text")
        for process in reversed(family(int(pid))):  # a child has the connection
            os.kill(process, signal.SIGKILL)
        with pytest.raises(OperationFailedError):
            key.sign(b"text")


def test_process_that_dies(far: TokenProcess, certificates: Certificates) -> None:
    apart.run(lose, certificates["p256"].cert, str(far.process.pid), variables=far.variables)
