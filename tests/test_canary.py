"""The canary: does the static linkage hold on the wheels of cryptography that are published?

`make canary` runs it, `make test` does not: it downloads each release. What dies here first is what users of the newest
cryptography meet next.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine_shim.linkage import binding, table
from engine_shim.linkage.elf import STT_FUNC, Elf
from support import environments
from support.source_tree import ROOT

pytestmark = [pytest.mark.canary, pytest.mark.slow, pytest.mark.timeout(300)]

# From the one that pyOpenSSL 23.0 was released with (OpenSSL 3.0.7); pip chooses the pyOpenSSL that fits.
RELEASES = ("38", "39", "40", "42", "44", "46", "48", "50")
LATEST = "1000"  # whatever is newest today


def requirement(release: str) -> str:
    return f"cryptography<{int(release) + 1}"


@pytest.fixture(scope="module", params=[*RELEASES, LATEST])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with one release of cryptography from its wheel, and a pyOpenSSL that fits."""
    found = environments.make(tmp_path_factory.mktemp(f"cryptography-{request.param}") / "venv")
    packages = (requirement(request.param), "pyOpenSSL>=23", "cffi")
    environments.run([found, *environments.PIP, "install", "--only-binary", ":all:", *packages])
    return found


def carriers(python: Path) -> list[Path]:
    """The shared objects of cryptography that might hold an OpenSSL."""
    code = "import cryptography; print(cryptography.__path__[0])"
    folder = Path(environments.run([python, "-c", code]).strip())
    return sorted((folder / "hazmat" / "bindings").glob("*.so"))


def test_every_name_is_there_once(python: Path) -> None:
    rows = table.load().rows()
    files = [Elf(path.read_bytes()) for path in carriers(python)]
    (carrier,) = (file for file in files if file.symbols({binding.ANCHOR})[binding.ANCHOR])
    found = carrier.symbols({binding.ANCHOR, *(row.name for row in rows)})
    counts = {row.name: len(found[row.name]) for row in rows}
    assert {row.name: counts[row.name] for row in rows if row.required and counts[row.name] != 1} == {}
    assert {row.name: counts[row.name] for row in rows if counts[row.name] > 1} == {}
    required = {binding.ANCHOR, *(row.name for row in rows if row.required)}
    symbols = [symbol for name in required for symbol in found[name]]
    assert [symbol for symbol in symbols if symbol.kind != STT_FUNC or not symbol.size] == []


def test_attach_and_handshake(python: Path) -> None:
    program = ROOT / "tests" / "support" / "tiny_handshake.py"
    answer = json.loads(environments.run([python, program], PYTHONPATH=str(ROOT)))
    assert answer["linkage"] == "static"
    assert answer["received"] == "hello"
    assert answer["parked"] >= 1
    print(f"cryptography at {answer['path']}: {answer['openssl']}")  # noqa: T201 - seen with pytest -s
