"""Processes of a server: their CPU time, their memory, and how they are started and ended.

Facts
- /proc/PID/stat counts CPU time in ticks of 10 ms; /proc/PID/schedstat in nanoseconds, but of one thread, and what an
  ended thread has used is gone. The CPU clock of a process (clock_getcpuclockid(3)) counts user and system time of all
  its threads, the ended ones too, in nanoseconds.
- The kernel's work for a packet on the loopback device is charged to who sent it.

Decision
- CPU time is the sum of these clocks over the processes of a server: the one that we have started and its descendants.
  None of these servers starts a process for a connection, so what is alive afterwards is all that has worked; it is
  checked.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

PATIENCE = 30.0  # seconds; a server that needs longer to start or to end does not work
IDLE_NS = 1_000_000  # CPU time in 50 ms: an idle server has timers
PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of a whole process: glibc's MAKE_PROCESS_CPUCLOCK


def cpu_ns(pid: int) -> int:
    """CPU time that the threads of a process have used, in nanoseconds."""
    return time.clock_gettime_ns(~pid << 3 | PROCESS_CLOCK)


def tree(pid: int) -> frozenset[int]:
    """The process and its descendants, as they are now."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, size = {pid}, 0
    while size < len(found):
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return frozenset(found)


class Memory(NamedTuple):
    """Physical memory of a server's processes, in bytes.

    Attributes:
        resident: Sum of what each holds (proc(5), Rss): pages that they share count once for each.
        proportional: The same with shared pages divided among who shares them (Pss).
    """

    resident: int
    proportional: int

    def __sub__(self, other: Memory) -> Memory:
        """What it has grown by since."""
        return Memory(self.resident - other.resident, self.proportional - other.proportional)


def memory(pids: frozenset[int]) -> Memory:
    """Look at /proc/PID/smaps_rollup of each."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids]
    return Memory(_kilobytes("Rss", texts), _kilobytes("Pss", texts))


def _kilobytes(name: str, texts: list[str]) -> int:
    found = [re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE) for text in texts]
    return sum(int(match[1]) * 1024 for match in found if match)


def _wants_to_run(pids: frozenset[int]) -> bool:
    """Tell whether a thread of these has work, and perhaps no core to do it on (proc(5), state R)."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # ended meanwhile
                if (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "R":
                    return True
    return False


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def pinned(command: Sequence[str | Path], core: int | None) -> list[str]:
    """The command, bound to a core, and ended by the kernel if we die."""
    taskset = [] if core is None else ["taskset", "--cpu-list", str(core)]
    return ["setpriv", "--pdeathsig", "TERM", *taskset, *map(str, command)]


class Process:
    """A server as we have started it; a context manager that ends it.

    Args:
        command: Program and arguments.
        port: Where it will listen, on 127.0.0.1.
        folder: Its working folder; what it prints goes to the file ``output`` there.
        core: The only core that it may use; None: any.
        environment: Variables that are set besides ours.

    Raises:
        RuntimeError: It has ended, or does not listen within `PATIENCE`; the message has what it printed.
    """

    def __init__(
        self, command: Sequence[str | Path], port: int, folder: Path, core: int | None, environment: dict[str, str]
    ) -> None:
        self.address = ("127.0.0.1", port)
        self._program = Path(command[0]).name
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                pinned(command, core),
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        try:
            self._wait_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(self.address):
                return
            self._pause(0.02)
        raise RuntimeError(f"{self._program} does not listen")

    def ask(self) -> str:
        """Send it an empty line, for which it prints one; return that.

        Raises:
            RuntimeError: Nothing comes for `PATIENCE`.
        """
        assert self._process.stdin is not None
        before = len(self._lines())
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while len(lines := self._lines()) == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._program} does not answer")
            self._pause(0.01)
        return lines[-1]

    def _lines(self) -> list[str]:
        return [line for line in self._output.read_text(errors="replace").splitlines(keepends=True) if "\n" in line]

    def _pause(self, seconds: float) -> None:
        """Let time pass while it works.

        Raises:
            RuntimeError: It has ended.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise RuntimeError(f"{self._program} has ended: {self._output.read_text(errors='replace')}")

    def pids(self) -> frozenset[int]:
        """Its processes, as they are now."""
        return tree(self._process.pid)

    def settled_cpu_ns(self, pids: frozenset[int]) -> int:
        """CPU time of these processes, once they have nothing to do any more.

        Raises:
            RuntimeError: They go on for `PATIENCE`.
        """
        used = sum(map(cpu_ns, pids))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._pause(0.05)
            before, used = used, sum(map(cpu_ns, pids))
            if used - before < IDLE_NS and not _wants_to_run(pids):
                return used
        raise RuntimeError(f"{self._program} does not come to rest")

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL where that does not help."""
        pids = self.pids()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE / 3)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
