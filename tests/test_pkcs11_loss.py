"""Sessions and tokens that are lost, forks, and the end of the process: each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from engine_shim import OperationFailedError, Status
from support import apart, leaks
from support.asking import make_pair
from support.certificates import Identity
from support.softhsm import MODULE, PIN, SoftHsm
from tlsserver.signers.pkcs11 import Pkcs11Signer
from tlsserver.signers.pkcs11_functions import SharedFunctions, _ffi

if TYPE_CHECKING:
    from engine_shim import Key
    from support.certificates import Certificates

LABEL = "apart"
URI = f"pkcs11:token={LABEL}?module-path={MODULE}"
_CLOSE_ALL_SESSIONS, _LOGOUT = 14, 19  # in CK_FUNCTION_LIST


def opened(certificate: str, **options: Any) -> tuple[Pkcs11Signer, Key]:
    signer = Pkcs11Signer(URI, pin=PIN, **options)
    return signer, signer.load_key(certificate)


def behind_its_back(signer: Pkcs11Signer, function: int) -> None:
    """Do to all sessions what somebody else in the process might do, while nobody is in a call."""
    signer._token.module.before_fork()
    kept = signer._token._kept
    assert kept is not None
    argument = kept[1].slot.slot_id if function == _CLOSE_ALL_SESSIONS else kept[2].handle  # type: ignore[attr-defined]
    functions = signer._token.module._functions
    assert isinstance(functions, SharedFunctions)
    assert _ffi.cast("unsigned long (*)(unsigned long)", functions._functions[function])(argument) == 0
    signer._token.module.after_fork(in_child=False)


@pytest.fixture
def own(tmp_path: Path, certificates: Certificates) -> SoftHsm:
    """A token that no other test has."""
    made = SoftHsm(tmp_path)
    made.token(LABEL, certificates["p256"])
    return made


def lose_sessions(certificate: str) -> None:
    signer, key = opened(certificate, threads=1)
    with signer:
        key.sign(b"text")
        for number, function in enumerate((_CLOSE_ALL_SESSIONS, _LOGOUT), 1):
            behind_its_back(signer, function)
            key.sign(b"text")
            assert signer.signers()[0].retries == number
        signer._token.module._functions.finalize()
        key.sign(b"text")
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.state) == (4, 0, "up")


def test_sessions_that_are_lost(own: SoftHsm, certificates: Certificates) -> None:
    apart.run(lose_sessions, certificates["p256"].cert, variables=own.variables)


def lose_sessions_under_load(certificate: str, ca: str) -> None:
    signer, key = opened(certificate)
    identity = Identity("p256", Path(certificate), Path(certificate), Path(ca))
    with signer:
        signing = [threading.Thread(target=lambda: [key.sign(b"text") for _ in range(100)]) for _ in range(3)]
        for thread in signing:
            thread.start()
        for _ in range(20):
            with signer._token._lock:
                if signer._token._kept is not None:
                    behind_its_back(signer, _CLOSE_ALL_SESSIONS)
            with make_pair(signer, identity) as pair:
                assert pair.finish() is Status.DONE
        for thread in signing:
            thread.join()
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.state) == (320, 0, "up")


def test_sessions_that_are_lost_under_load(own: SoftHsm, certificates: Certificates) -> None:
    identity = certificates["p256"]
    apart.run(lose_sessions_under_load, identity.cert, identity.ca, variables=own.variables)


def lose_token(certificate: str, private: str, folder: str) -> None:
    """The token is deleted; an op waits; the token is made anew, and the op is performed there."""
    hsm = SoftHsm.__new__(SoftHsm)
    hsm.configuration = Path(folder) / "softhsm2.conf"
    identity = Identity("p256", Path(certificate), Path(private), Path(certificate))
    signer, key = opened(certificate, threads=1, deadline=20)
    with signer:
        key.sign(b"text")
        hsm.delete(LABEL)
        waiting = threading.Thread(target=lambda: print(len(key.sign(b"text")) > 0))  # noqa: T201 - the answer
        waiting.start()
        leaks.wait_until(lambda: signer.signers()[0].state == "down")
        assert signer.signers()[0].state == "down"
        hsm.token(LABEL, identity)
        waiting.join()
        (numbers,) = signer.signers()
        assert (numbers.performed, numbers.failed, numbers.state) == (2, 0, "up")
        assert numbers.retries > 0


def test_token_that_is_lost_and_found(own: SoftHsm, certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]
    told = apart.run(lose_token, identity.cert, identity.key, str(tmp_path), variables=own.variables)
    assert told == "True\n"


def miss_token(certificate: str, folder: str) -> None:
    hsm = SoftHsm.__new__(SoftHsm)
    hsm.configuration = Path(folder) / "softhsm2.conf"
    signer, key = opened(certificate, threads=1, deadline=0.3)
    with signer:
        key.sign(b"text")
        hsm.delete(LABEL)
        for _ in range(5):
            with pytest.raises(OperationFailedError, match=r"no token with token 'apart'|in time"):
                key.sign(b"text")
        leaks.wait_until(lambda: signer.signers()[0].breaker == "open")
        with pytest.raises(OperationFailedError, match="token 'apart' is away"):
            key.sign(b"text")


def test_token_that_is_lost_for_good(own: SoftHsm, certificates: Certificates, tmp_path: Path) -> None:
    apart.run(miss_token, certificates["p256"].cert, str(tmp_path), variables=own.variables)


def fork(certificate: str, ca: str) -> None:
    """Fork while the signer's threads are at it, on the thread that has the handshakes."""
    identity = Identity("p256", Path(certificate), Path(certificate), Path(ca))
    signer, key = opened(certificate)
    key.sign(b"text")
    ended = []
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            pairs = [stack.enter_context(make_pair(signer, identity)) for _ in range(6)]
            assert {pair.until_parked() for pair in pairs} == {Status.WANT_ASYNC}
            child = os.fork()
            if child == 0:
                in_child(signer, key, identity)
            assert {pair.finish() for pair in pairs} == {Status.DONE}
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ended == [0] * 5
    (numbers,) = signer.signers()
    assert (numbers.performed, numbers.failed) == (31, 0)
    signer.close()


def in_child(signer: Pkcs11Signer, key: Key, identity: Identity) -> NoReturn:
    """Sign outside a handshake, in one, and end as a process does."""
    status = 1
    try:
        key.sign(b"text")
        with make_pair(signer, identity) as pair:
            status = 0 if pair.finish() is Status.DONE else 2
        signer.close()
    finally:
        os._exit(status)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_while_the_token_signs(own: SoftHsm, certificates: Certificates) -> None:
    identity = certificates["p256"]
    apart.run(fork, identity.cert, identity.ca, variables=own.variables)


def leave_open(certificate: str) -> None:
    _, key = opened(certificate)
    key.sign(b"text")


def leave_busy(certificate: str) -> None:
    """The process ends while four threads sign."""
    signer, key = opened(certificate)
    for _ in range(8):
        threading.Thread(target=lambda: [key.sign(b"text") for _ in range(10**6)], daemon=True).start()
    leaks.wait_until(lambda: len(signer._threads) == 4)


def leave_parked(certificate: str, ca: str) -> None:
    """The process ends while a handshake is parked."""
    identity = Identity("p256", Path(certificate), Path(certificate), Path(ca))
    signer, _ = opened(certificate)
    never = threading.Event()
    signer._perform = lambda *_: never.wait()  # type: ignore[assignment,method-assign]
    pair = make_pair(signer, identity)
    assert pair.until_parked() is Status.WANT_ASYNC
    globals()["kept"] = pair


@pytest.mark.parametrize("way", ["leave_open", "leave_busy", "leave_parked"])
def test_end_of_the_process(own: SoftHsm, certificates: Certificates, way: str) -> None:
    identity = certificates["p256"]
    arguments = [identity.cert, identity.ca] if way == "leave_parked" else [identity.cert]
    done = subprocess.run(
        apart.command(__name__, way, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env=apart.environment(**own.variables),
    )
    assert (done.returncode, done.stdout) == (0, "")
    # Two of the ways leave something open, which Python says; what matters is that nothing crashes.
    assert done.stderr == "" or way != "leave_open"
    assert "Fatal" not in done.stderr
