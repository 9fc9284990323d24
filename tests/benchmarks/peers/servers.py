"""The servers that are compared: how each is run with one thread, and which TLS library it has.

To add one, add a row to `SERVERS`. What all have in common is enforced by the client, which offers one version, one
cipher and one group; each server is only told its certificate, to use one thread, to log nothing for a connection, and
to leave idle connections alone.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import configurations

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
MANY = 4096  # connections that the kernel holds until they are accepted: no server is to lose any

# Environments of ours: the name's ending, and where the Python is. The last has the same packages as the first, on a
# Python that was built with profile-guided optimization.
ENVIRONMENTS = {
    "": Path(sys.executable),
    "-distro": ROOT / ".venv-distro" / "bin" / "python",
    "-pgo": ROOT / "build" / "pgo" / "bin" / "python",
}


@dataclass(frozen=True)
class Place:
    """What a server is told.

    Attributes:
        folder: Its own, for its configuration.
        port: Where to listen, on 127.0.0.1.
        identity: Certificate and key.
        tools: The virtual environment of the servers from PyPI.
    """

    folder: Path
    port: int
    identity: Identity
    tools: Path


@dataclass(frozen=True)
class Server:
    """One row.

    Attributes:
        command: Makes the command, and writes the configuration that it names.
        program: What must be there to run it: a command, or a path in the tools' environment.
        version: Asks for its version and its TLS library's.
        speaks: "http" or "echo".
        group: "ours", "debian" or "pypi".
        default: Whether it runs unless `--only` says otherwise.
        environment: Variables that it wants.
    """

    command: Callable[[Place], list[str]]
    program: Callable[[Path], Path | None]
    version: Callable[[Path], str]
    speaks: str
    group: str
    default: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def output(*command: str | Path) -> str:
    """What a command prints, on whichever stream."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip()


def which(program: str) -> Path | None:
    """Where a system's program is: Debian's daemons are in folders that a user's PATH may not have."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


# --- Debian's ---


def _debian(program: str, *version: str) -> Server:
    """Row of a server with a configuration file in `configurations`."""

    def command(place: Place) -> list[str]:
        return [str(which(program)), *configurations.WRITERS[program](place)]

    def told(_: Path) -> str:
        text = output(str(which(program)), *version)
        number = re.search(r"(?:version:?|nginx/|h2o version) ?(?:nginx/)?(\d[\w.]*)", text)
        library = re.findall(r"OpenSSL \d[\w.]*", text)
        return f"{number[1] if number else '?'}, {library[-1] if library else '?'}"

    return Server(command, lambda _: which(program), told, "http", "debian")


# --- PyPI's ---

SSL_OF_PYTHON = "import ssl; print(ssl.OPENSSL_VERSION)"
SSL_OF_PYOPENSSL = "from OpenSSL import SSL; print(SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode())"


def _pypi(name: str, command: Callable[[Place], list[str]], library: str | None, speaks: str = "http") -> Server:
    """Row of a server from PyPI; `library` is Python that prints the TLS library's version, None: it has its own."""

    def told(tools: Path) -> str:
        python = tools / "bin" / "python"
        number = "of Python " + output(python, "--version").split()[-1]
        if name != "asyncio":
            number = output(python, "-c", f"from importlib.metadata import version; print(version({name!r}))")
        return f"{number}, {_of_rust(tools) if library is None else _short(output(python, '-c', library))}"

    def program(tools: Path) -> Path | None:
        found = tools / "bin" / {"twisted": "twist", "asyncio": "python"}.get(name, name)
        return found if found.exists() else None

    return Server(command, program, told, speaks, "pypi", environment={"PYTHONPATH": str(HERE / "apps")})


def _of_rust(tools: Path) -> str:
    """The TLS libraries that are compiled into granian: its messages name the files that they come from."""
    found: set[tuple[bytes, bytes]] = set()
    for file in tools.glob("lib/python*/site-packages/granian/*.so"):
        found |= set(re.findall(rb"/(rustls|ring|aws-lc-rs)-(\d+\.\d+\.\d+)/", file.read_bytes()))
    return ", ".join(sorted(f"{name.decode()} {version.decode()}" for name, version in found)) or "rustls"


def _short(library: str) -> str:
    return " ".join(library.split()[:2])


def _uvicorn(place: Place) -> list[str]:
    files = ["--ssl-certfile", str(place.identity.cert), "--ssl-keyfile", str(place.identity.key)]
    quiet = ["--no-access-log", "--log-level", "error", "--lifespan", "off"]
    where = ["--host", "127.0.0.1", "--port", str(place.port), "--backlog", str(MANY), "--timeout-keep-alive", "3600"]
    return [str(place.tools / "bin" / "uvicorn"), "hello:app", *where, *files, *quiet]


def _hypercorn(place: Place) -> list[str]:
    files = ["--certfile", str(place.identity.cert), "--keyfile", str(place.identity.key)]
    where = ["--bind", f"127.0.0.1:{place.port}", "--backlog", str(MANY), "--keep-alive", "3600"]
    quiet = ["--log-level", "CRITICAL"]  # it logs each connection that is reset
    return [
        str(place.tools / "bin" / "hypercorn"),
        "hello:app",
        "--workers",
        "1",
        "-k",
        "uvloop",
        *where,
        *files,
        *quiet,
    ]


def _granian(place: Place) -> list[str]:
    files = ["--ssl-certificate", str(place.identity.cert), "--ssl-keyfile", str(place.identity.key)]
    threads = ["--workers", "1", "--runtime-mode", "st", "--runtime-threads", "1", "--blocking-threads", "1"]
    where = ["--host", "127.0.0.1", "--port", str(place.port), "--backlog", str(MANY), "--backpressure", "20000"]
    waits = ["--http1-header-read-timeout", "60000"]  # the most that it takes
    quiet = ["--no-log", "--ssl-protocol-min", "tls1.2"]
    return [
        str(place.tools / "bin" / "granian"),
        "--interface",
        "asgi",
        "hello:app",
        *where,
        *files,
        *threads,
        *waits,
        *quiet,
    ]


def _script(name: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        files = [str(place.identity.cert), str(place.identity.key)]
        return [str(place.tools / "bin" / "python"), str(HERE / "apps" / f"{name}_echo.py"), str(place.port), *files]

    return command


# --- Ours ---

# Name: arguments of `tlsserver serve`, and whether it runs by default in each environment.
OURS = {
    "off": (("--offload", "off"), {"", "-distro"}),
    "auto": (("--offload", "auto"), {"", "-distro", "-pgo"}),
    "batch0": (("--offload", "batch", "--offload-threads", "0"), {"", "-distro", "-pgo"}),
    "batch1": (("--offload", "batch", "--offload-threads", "1"), {""}),
    "threads": (("--offload", "threads", "--offload-threads", "1"), {""}),
    "isolated": (("--offload", "isolated"), set()),  # two processes: their CPU time together
}


@functools.cache
def engines(python: Path) -> frozenset[str]:
    """Which engines `--offload` knows in an environment."""
    forms = output(python, "-c", "from tlsserver.cli.offload import FORMS; print(FORMS)")
    return frozenset(form.partition(":")[0] for form in forms.split("|"))


def ours(ending: str, arguments: tuple[str, ...], *, default: bool = True, speaks: str = "http") -> Server:
    """Row of ours.

    Args:
        ending: Of the name of one of `ENVIRONMENTS`.
        arguments: Of `tlsserver serve`; the first is `--offload`.
        default: Whether it runs unless told otherwise.
        speaks: "http" for the demo site, "echo" for the echo protocol.
    """
    python = ENVIRONMENTS[ending]

    def command(place: Place) -> list[str]:
        files = ["--ssl-certfile", str(place.identity.cert), "--ssl-keyfile", str(place.identity.key)]
        where = ["--port", str(place.port), "--backlog", str(MANY)]
        if speaks == "echo":
            return [str(python), str(HERE / "apps" / "ours_echo.py"), *where, *files, *arguments]
        limits = ["--timeout-keep-alive", "3600", "--timeout-handshake", "600", "--log-level", "critical"]
        return [str(python), "-m", "tlsserver", "serve", *where, *files, *arguments, *limits]

    def program(_: Path) -> Path | None:
        return python if python.exists() and arguments[1].partition(":")[0] in engines(python) else None

    def told(_: Path) -> str:
        about = "import engine_shim; found = engine_shim.attach(); print(found.name, found.openssl_version)"
        linkage = " ".join(output(python, "-c", about).split()[:3])
        return f"this tree, {linkage}, Python {output(python, '--version').split()[-1]}"

    return Server(command, program, told, speaks, "ours", default)


def _all_of_ours() -> dict[str, Server]:
    found = {}
    for speaks in ("http", "echo"):
        for ending in ENVIRONMENTS:
            for name, (arguments, defaults) in OURS.items():
                full = f"{name}{'-echo' if speaks == 'echo' else ''}{ending}"
                found[full] = ours(ending, arguments, default=ending in defaults, speaks=speaks)
    return found


SERVERS: dict[str, Server] = {
    **_all_of_ours(),
    "nginx": _debian("nginx", "-V"),
    "haproxy": _debian("haproxy", "-vv"),
    "h2o": _debian("h2o", "--version"),
    "uvicorn": _pypi("uvicorn", _uvicorn, SSL_OF_PYTHON),
    "hypercorn": _pypi("hypercorn", _hypercorn, SSL_OF_PYTHON),
    "granian": _pypi("granian", _granian, None),
    "asyncio": _pypi("asyncio", _script("asyncio"), SSL_OF_PYTHON, "echo"),
    "twisted": _pypi("twisted", _script("twisted"), SSL_OF_PYOPENSSL, "echo"),
}
