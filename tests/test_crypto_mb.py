"""What the build takes of crypto_mb, and what it says when it does without."""

from __future__ import annotations

import platform
import runpy
import shutil
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim.linkage.elf import Elf
from support import environments
from support.source_tree import ROOT, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X86_64 = platform.machine() == "x86_64"


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "engine_shim" / "_crypto_mb.py"))


@pytest.mark.skipif(not X86_64, reason="crypto_mb is for x86-64")
def test_found_under_whatever_prefix_pip_has_chosen(script: dict[str, Any]) -> None:
    found = script["find"]()
    assert (found.include / "crypto_mb" / "rsa.h").is_file()
    assert found.archive.name == "libcrypto_mb.a"
    assert found.archive.is_file()


def another_machine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "machine", lambda: "aarch64")


def the_switch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "machine", lambda: "x86_64")
    patch.setenv("TLSSERVER_WITHOUT_CRYPTO_MB", "1")


def not_installed(patch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> None:
        raise metadata.PackageNotFoundError

    patch.setattr(platform, "machine", lambda: "x86_64")
    patch.setattr(metadata, "distribution", nothing)


@pytest.mark.parametrize(
    ("obstacle", "why"),
    [
        (another_machine, "crypto_mb is for x86-64, this is aarch64"),
        (the_switch, "TLSSERVER_WITHOUT_CRYPTO_MB is set"),
        (not_installed, "ipp-crypto-include is not installed"),
    ],
)
def test_without_it_the_build_says_why_in_one_line(
    obstacle: Callable[[pytest.MonkeyPatch], None],
    why: str,
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    obstacle(monkeypatch)
    assert script["maybe_find"]() is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.endswith(f": {why}\n")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("without", ["1", ""])
def test_a_variant_is_a_file(without: str, tmp_path: Path) -> None:
    """What the build is told goes into the extension, and it loads either way."""
    for path in files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    build = "import os, sys, runpy; os.chdir(sys.argv.pop(1)); runpy.run_path('setup.py', run_name='__main__')"
    command: list[str | Path] = [sys.executable, "-c", build, tmp_path, "-q", "build_ext", "--inplace"]
    environments.run(command, TLSSERVER_WITHOUT_CRYPTO_MB=without)
    (extension,) = (tmp_path / "engine_shim").glob("_native*.so")
    (places,) = Elf(extension.read_bytes()).symbols({"k1_mbx_rsa_private_crt_mb8"}).values()
    has_lanes = places != []
    assert has_lanes == (not without and X86_64)
    environments.run(
        [sys.executable, "-c", "import _native; _native.lib.ossl_count()"], PYTHONPATH=str(extension.parent)
    )
