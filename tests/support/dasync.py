"""OpenSSL's dummy asynchronous ENGINE, built from the distribution's source package of the installed libssl.

It is no part of any package that can be installed. `apt-get source` fetches the source with a list of sources, a state
and a cache of its own, derived from those of the machine, in which nothing changes. The result is kept in ``build/``,
which is in no repository.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest

from engine_shim import attach
from engine_shim.linkage import plugin
from support.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = ROOT / "build" / "dasync"
APT = Path("/etc/apt")

# OpenSSL's own header of this name switches its warnings off; the other headers come from libssl-dev.
_INTERNAL = {"deprecated.h": "#define OPENSSL_SUPPRESS_DEPRECATED\n"}


class MissingError(Exception):
    """Something that the machine does not have, in one line."""


class DownloadError(Exception):
    """The source could not be fetched, in one line."""


def engine() -> Path:
    """Give the path of dasync.so; skips the test where there can be none.

    A failed download skips as well, except where the environment variable CI is set: there it fails.
    """
    if attach().name != "shared":
        pytest.skip("ENGINEs need the shared linkage")
    try:
        return _built()
    except MissingError as missing:
        pytest.skip(f"dasync cannot be built: {missing}")
    except DownloadError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"dasync's source cannot be fetched: {error}")


def _built() -> Path:
    package, version = _source_package()
    folder = CACHE / re.sub(r"[^\w.+~-]", "_", version)
    with _locked(CACHE):
        if not (folder / "dasync.so").exists():
            folder.mkdir(exist_ok=True)
            _extract(_fetch(package, version, folder / "apt"), folder)
            shutil.rmtree(folder / "apt")
            _compile(folder)
    return folder / "dasync.so"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process in at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _source_package() -> tuple[str, str]:
    """Name the source package, and its version, of the libcrypto that is loaded."""
    for tool in ("apt-get", "dpkg-query", "gcc"):
        if shutil.which(tool) is None:
            raise MissingError(f"no {tool} here")
    if not Path("/usr/include/openssl/engine.h").exists():
        raise MissingError("libssl-dev is not installed")
    paths = [path for path in plugin.loaded_openssl() if PurePath(path).name.startswith("libcrypto")]
    owner = _run("dpkg-query", "--search", paths[0])
    if not owner:
        raise MissingError(f"{paths[0]} belongs to no package")
    form = "${source:Package} ${source:Version}"
    package, version = _run("dpkg-query", "--show", "--showformat", form, owner.partition(": ")[0]).split()
    return package, version


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _fetch(package: str, version: str, folder: Path) -> Path:
    """Fetch the tar file of the source; its checksum is in the signed index. Another version does if this is gone."""
    options = _private_apt(folder)
    _apt(folder, *options, "update")
    command = (*options, "source", "--download-only", "--tar-only")
    told = _apt(folder, *command, f"{package}={version}") and _apt(folder, *command, package)
    found = list(folder.glob("*.orig.tar.*z*"))
    if not found:
        raise DownloadError(" ".join(told.split()[-40:]))
    return found[0]


def _private_apt(folder: Path) -> list[str]:
    """Make what apt keeps in files once more, with sources in the place of binary packages."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("parts", "state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    for file in [APT / "sources.list", *APT.glob("sources.list.d/*.list"), *APT.glob("sources.list.d/*.sources")]:
        if file.exists():
            (folder / "parts" / file.name).write_text(_as_sources(file.read_text()))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::State": folder / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "Acquire::Retries": 2,
        "Acquire::http::Timeout": 20,
        "Acquire::https::Timeout": 20,
    }
    return [f"--option={name}={value}" for name, value in settings.items()]


def _as_sources(text: str) -> str:
    """Turn entries for binary packages into such for sources, in both forms of sources.list(5)."""
    text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE)
    return re.sub(r"^deb(?=[ \t])", "deb-src", text, flags=re.MULTILINE)


def _apt(folder: Path, *arguments: str) -> str:
    """Run apt-get; gives what it complained about, nothing if it succeeded."""
    done = subprocess.run(
        ["apt-get", "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stderr if done.returncode else ""


def _extract(archive: Path, folder: Path) -> None:
    """Take dasync's files out of the archive, and nothing else."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePath(member.name)
            content = tar.extractfile(member) if path.match("engines/e_dasync*") else None
            if content is not None:
                (folder / path.name).write_bytes(content.read())
    (folder / "internal").mkdir(exist_ok=True)
    for name, text in _INTERNAL.items():
        (folder / "internal" / name).write_text(text)


def _compile(folder: Path) -> None:
    new = folder / "dasync.new"
    flags = ("-shared", "-fPIC", "-O2", "-g", "-w", "-I", str(folder))
    command = ("gcc", *flags, "-o", str(new), str(folder / "e_dasync.c"), "-lcrypto")
    subprocess.run(command, check=True)
    new.replace(folder / "dasync.so")
