"""What a key server cannot have of its kernel; what it can is in test_cli_signer.py."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from tlsserver.errors import ConfigurationError
from tlsserver.signers.keyserver_process import drop_privileges, harden, lock_memory


def test_user_without_a_group() -> None:
    with pytest.raises(ConfigurationError, match="give --group as well"):
        drop_privileges(3_999_999, None)
    drop_privileges(None, None)  # nothing is asked for


def test_what_is_not_allowed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that forbids it; nothing of this process is changed."""

    def refuse(*_: object) -> int:
        raise ValueError("not allowed to raise maximum limit")

    class Refusing:
        def prctl(self, *_: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

        mlockall = prctl

    monkeypatch.setattr(os, "umask", lambda _mode: 0)
    monkeypatch.setattr("tlsserver.signers.keyserver_process._libc", Refusing())
    monkeypatch.setattr("resource.setrlimit", refuse)
    assert [line.partition(":")[0] for line in harden()] == [
        "core dumps cannot be forbidden",
        "debuggers of the same user cannot be kept out",
        "new privileges cannot be forbidden",
    ]
    assert "LimitMEMLOCK" in str(lock_memory())
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    assert "LimitMEMLOCK" in str(lock_memory())
