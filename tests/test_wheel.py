"""The wheel: what is in it, and that it works where there is no compiler."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from engine_shim.linkage.elf import DT_RPATH, DT_RUNPATH, Elf
from support import environments
from support.source_tree import ROOT, files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.timeout(300)]

DISTRIBUTION_PACKAGES = any("dist-packages" in path for path in sys.path)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of the tree, and the wheel from the sdist: so the sdist is complete, too."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package `build` is not installed")
    source = tmp_path_factory.mktemp("source")
    for path in files():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    out = tmp_path_factory.mktemp("dist")
    environments.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], LDSHARED="gcc -shared")
    return out


@pytest.fixture(scope="module")
def wheel(artifacts: Path) -> Path:
    (found,) = artifacts.glob("*.whl")
    return found


def test_tags(wheel: Path) -> None:
    """One wheel for every Python from 3.10 on."""
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("cp310", "abi3")
    assert platform.startswith("linux_")


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"engine_shim/py.typed", "tlsserver/py.typed", "engine_shim/_native.abi3.so"} <= names
    assert "tlsserver/testing/_provider.abi3.so" in names
    assets = {path.relative_to(ROOT).as_posix() for path in files(".html", ".css", ".js", ".svg")}
    assert {name for name in assets if name.startswith("tlsserver/")} <= names
    modules = {path.relative_to(ROOT).as_posix() for path in files(".py")}
    assert {name for name in modules if name.startswith(("tlsserver/", "engine_shim/"))} <= names
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"tlsserver", "engine_shim"}


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = archive.read(name).decode()
    required = {line.split()[1].split(">")[0] for line in metadata.splitlines() if line.startswith("Requires-Dist")}
    assert {"pyOpenSSL", "cffi", "selectors2", "h11", "click", "cryptography"} <= required
    assert "License: Apache-2.0" in metadata
    assert any(name.endswith("/LICENSE") for name in archive.namelist())
    (notice,) = (name for name in archive.namelist() if name.endswith("/LICENSE.third-party"))
    assert "crypto_mb" in archive.read(notice).decode()  # section 4 of its licence


@pytest.mark.parametrize("name", ["engine_shim/_native.abi3.so", "tlsserver/testing/_provider.abi3.so"])
def test_no_path_of_the_building_machine_in_the_extension(wheel: Path, name: str) -> None:
    extension = Elf(zipfile.ZipFile(wheel).read(name))
    run_paths = extension.dynamic_strings(DT_RPATH, DT_RUNPATH)
    assert run_paths == ()


def test_works_without_compiler(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment whose PATH holds its own folder only."""
    site = ("--system-site-packages",) if DISTRIBUTION_PACKAGES else ()
    python = environments.make(tmp_path / "venv", *site)
    path = str(python.parent)
    environments.run([python, *environments.PIP, "install", wheel], PATH=path)
    told = environments.run([python, "-I", ROOT / "tests" / "support" / "tiny_handshake.py"], PATH=path)
    answer = json.loads(told)
    assert answer["received"] == "hello"
    assert answer["parked"] >= 1
    scripted = "from tlsserver.testing import ScriptedProvider as S; s = S(); print(s.counts().fds_open); s.close()"
    assert environments.run([python, "-I", "-c", scripted], PATH=path) == "0\n"
    assert "Usage" in environments.run([python.parent / "tlsserver", "--help"], PATH=path)
