"""Modules: found, loaded once, initialized for several threads, and again in a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from support import apart
from support.softhsm import MODULE, PIN
from tlsserver.errors import ConfigurationError
from tlsserver.signers import pkcs11_paths
from tlsserver.signers.pkcs11_module import Module, load_module
from tlsserver.signers.pkcs11_paths import module_path
from tlsserver.signers.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates
    from support.softhsm import SoftHsm


def test_which_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKCS11_MODULE_PATH", "/from/environment.so")
    uri = Pkcs11Uri(module_path="/from/uri.so")
    assert module_path("/given.so", uri) == "/given.so"
    assert module_path(None, uri) == "/from/uri.so"
    assert module_path(None, Pkcs11Uri()) == "/from/environment.so"
    assert module_path(None, Pkcs11Uri(module_name="softhsm2")).endswith("/libsofthsm2.so")
    assert module_path(None, Pkcs11Uri(module_name="SoftHSM2")).endswith("/libsofthsm2.so")


def test_no_module_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PKCS11_MODULE_PATH", raising=False)
    with pytest.raises(ConfigurationError, match=r"set PKCS11_MODULE_PATH; here there is .*SoftHSM2 /"):
        module_path(None, Pkcs11Uri())
    with pytest.raises(ConfigurationError, match="no PKCS #11 module called nothing is installed"):
        module_path(None, Pkcs11Uri(module_name="nothing"))
    monkeypatch.setattr(pkcs11_paths, "_FOLDERS", ())
    with pytest.raises(ConfigurationError, match="none of the usual ones is installed"):
        module_path(None, Pkcs11Uri())


def test_file_that_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(ConfigurationError, match=r"text\.so cannot be loaded: .*; here there is "):
        load_module(str(tmp_path / "text.so"))
    with pytest.raises(ConfigurationError, match=r"none\.so cannot be loaded"):
        load_module(str(tmp_path / "none.so"))
    with pytest.raises(ConfigurationError, match=r"libc.so.6 is no PKCS #11 module: it has no C_GetFunctionList"):
        load_module("libc.so.6")


def test_loaded_once(softhsm: SoftHsm) -> None:
    assert softhsm.configuration.exists()
    assert load_module(MODULE) is load_module(os.path.realpath(MODULE))


def test_module_that_others_have_initialized_is_called_by_one_at_a_time(
    softhsm: SoftHsm, caplog: pytest.LogCaptureFixture
) -> None:
    assert softhsm.configuration.exists()
    load_module(MODULE)
    second = Module(os.path.realpath(MODULE))
    assert "is used by others in this process: one signature at a time" in caplog.text
    inside, entered = threading.Event(), threading.Event()

    def call() -> None:
        inside.set()
        with second.call():
            entered.set()

    with second.call():
        other = threading.Thread(target=call)
        other.start()
        assert inside.wait(30)
        assert not entered.wait(0.05)
    assert entered.wait(30)
    other.join()
    second.end()  # what is not ours is not finalized
    with load_module(MODULE).call() as library:
        assert library.get_slots() is not None


def test_fork_waits_for_calls(softhsm: SoftHsm) -> None:
    assert softhsm.configuration.exists()
    module = load_module(MODULE)
    inside, go = threading.Event(), threading.Event()

    def call() -> None:
        with module.call():
            inside.set()
            go.wait(30)

    caller = threading.Thread(target=call)
    caller.start()
    assert inside.wait(30)
    forking = threading.Thread(target=module.before_fork)
    forking.start()
    forking.join(0.05)
    assert forking.is_alive()
    go.set()
    forking.join(30)
    assert not forking.is_alive()
    module.after_fork(in_child=False)
    caller.join()
    with module.call():
        pass


def test_without_the_library() -> None:
    """The extra is not installed: one line says so."""
    code = "import sys; sys.modules['pkcs11'] = None; import tlsserver.signers.pkcs11"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=apart.environment()
    )
    assert "pip install 'tlsserver[pkcs11]'" in done.stderr.splitlines()[-1]


def sign_with_threads(uri: str, certificate: str) -> None:
    """Sign with four threads at once: what a module that takes it for one thread does not survive."""
    from tlsserver.signers.pkcs11 import Pkcs11Signer  # noqa: PLC0415 - the module starts in the process of its own

    with Pkcs11Signer(uri, pin=PIN, threads=4) as signer:
        key = signer.load_key(certificate)
        threads = [threading.Thread(target=lambda: [key.sign(b"text") for _ in range(200)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (numbers,) = signer.signers()
        print(len(signer._threads), numbers.performed, numbers.failed, numbers.retries)  # noqa: T201 - the answer


def test_threads_that_sign_at_once(softhsm: SoftHsm, web: str, certificates: Certificates) -> None:

    told = apart.run(sign_with_threads, web, certificates["p256"].cert, variables=softhsm.variables)
    assert told.split() == ["4", "1600", "0", "0"]
