"""What is looked at before OpenSSL loads a file of somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_shim import attach
from engine_shim.linkage import Refused, plugin
from support.shared_objects import build

if TYPE_CHECKING:
    from pathlib import Path

USES = "int RAND_status(void);\nint f(void) { return RAND_status(); }"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A libcrypto that this process does not have."""
    source = "int RAND_status(void) { return 1; }"
    return build(tmp_path / "libcrypto.so.99", source, "-Wl,-soname,libcrypto.so.99")


def test_another_openssl_is_refused(tmp_path: Path, other: Path) -> None:
    path = build(tmp_path / "user.so", USES, str(other))
    with pytest.raises(Refused, match=r"user.so would bring a second OpenSSL \(libcrypto.so.99\)"):
        plugin.check(path)


def test_ours_is_not(tmp_path: Path) -> None:
    ours = next((path for path in plugin.loaded_openssl() if "libcrypto" in path), None)
    if attach().name != "shared" or ours is None:
        pytest.skip("OpenSSL is not shared here")
    plugin.check(build(tmp_path / "user.so", USES, ours))


def test_what_has_nothing_to_do_with_openssl(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not depend on libcrypto"):
        plugin.check(build(tmp_path / "alone.so", "int f(void) { return 1; }"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read: No such file"):
        plugin.check(tmp_path / "missing.so")
    (tmp_path / "text.so").write_text("no ELF")
    with pytest.raises(Refused, match="is no shared object"):
        plugin.check(tmp_path / "text.so")


def test_another_machine(tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path / "user.so", USES, str(other))
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Refused, match=r"is for .*, this machine is riscv64"):
        plugin.check(path)
