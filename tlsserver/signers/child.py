"""A key server of our own in a process of its own, which is started anew whenever it dies.

Facts
- Whoever reads this process's memory, by a bug of a parser or a core dump, finds what is in it. A key that was never
  read here is not.
- `fork` copies memory, and threads do not survive it; a process that is started from its program has neither trouble.
- PR_SET_PDEATHSIG follows the thread that started the child, which may end long before this process does.

Decision
- The child is the program `tlsserver signer`, given the paths of the keys and never their content. It listens on a
  Unix socket in a folder that only this user can enter, and takes nobody else's requests.
- Its standard input is a pipe from here: when it ends, we have ended, and the child does as well. It has a session of
  its own, so that Ctrl-C at the terminal does not reach it before our last handshake is done.
- It tells over another pipe which keys it has, each time that it has read them. What it says on standard error goes to our log;
  the last line of one that never got so far is the reason of the failure.
- One thread waits for its end and starts it anew, after a pause that grows while it dies at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

__all__ = ["SignerChild"]

logger = logging.getLogger(__name__)

# Python's start and RSA's keys: half a second here, more on a machine that is busy.
_START_SECONDS = 30.0
_PAUSE_FIRST, _PAUSE_MOST = 0.05, 1.0
_LIVED_LONG = 10.0  # seconds after which a death is news, and not one more of the same
_PASSWORD = "TLSSERVER_SIGNER_CHILD_PASSWORD"  # noqa: S105 - the name of a variable

# The child runs the code that we run, wherever we have it from; nothing in its working directory can get in between.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from tlsserver.cli import main; main()"


class SignerChild:
    """The process, whoever it is at the moment. Any thread.

    Args:
        keys: Paths of the private keys, PEM or DER. They are never read here.
        password: Of the keys that are encrypted: ``file:PATH``, ``env:NAME``, ``pass:TEXT`` or the text.
        offload: The engine there, as ``--offload`` has it.
        threads: Of that engine; None: its default.
    """

    def __init__(
        self,
        keys: Sequence[str | Path],
        *,
        password: str | None = None,
        offload: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tlsserver-signer-"))  # mode 0700: mkdtemp(3)
        self.socket = self._folder / "signer.sock"
        self._command = [sys.executable, "-I", "-c", _PROGRAM.format(path=sys.path), "signer"]
        self._command += [f"--key={Path(key).absolute()}" for key in dict.fromkeys(keys)]
        self._command += ["--listen", f"unix:{self.socket}", "--offload", offload, "--attended"]
        if threads is not None:
            self._command += ["--offload-threads", str(threads)]
        self._environment = dict(os.environ)
        if password is not None:
            self._command += ["--key-password", f"env:{_PASSWORD}" if _is_secret(password) else password]
            self._environment[_PASSWORD] = password.removeprefix("pass:")
        self._lock = threading.Lock()
        self._told = threading.Condition(self._lock)
        self._process: subprocess.Popen[bytes] | None = None  # under the lock, like the next three
        self._keys: frozenset[bytes] = frozenset()
        self._tellings = 0
        self._last_words = ""
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="tls-signer-child", daemon=True)
        self._pid = os.getpid()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process that there is now; None: there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def key_ids(self) -> frozenset[bytes]:
        """Return which keys it has (`engine_shim.Key.key_id`)."""
        return self._keys

    def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            ConfigurationError: It has ended instead: a key cannot be read. The message is its own.
        """
        self._spawn()
        self._watcher.start()
        if not self._await(0, _START_SECONDS):
            words = self._last_words
            self.close()
            raise ConfigurationError(words or "the signer's process does not begin to serve: look at the log")

    def reload(self) -> None:
        """Let it read its keys again; those that it had before it keeps for a while.

        Returns when it has.
        """
        with self._lock:
            before, process = self._tellings, self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGHUP)
            self._await(before, _START_SECONDS)

    def close(self, timeout: float = 5.0) -> bool:
        """End it: it finishes what it has in hand. Idempotent.

        Args:
            timeout: Seconds after which it is killed.

        Returns:
            Whether it has ended by itself.
        """
        if os.getpid() != self._pid:
            return True  # it is the parent's
        self._closing.set()
        with self._lock:
            process = self._process
        ended = process is None or _end(process, timeout)
        if self._watcher.is_alive():
            self._watcher.join(timeout)
        shutil.rmtree(self._folder, ignore_errors=True)
        return ended

    def _spawn(self) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                [*self._command, "--status-fd", str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment,
                pass_fds=(write_end,),
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        with self._lock:
            self._process, self._status = process, read_end

    def _watch(self) -> None:
        pause = _PAUSE_FIRST
        while True:
            born = time.monotonic()
            process, status = self._process, self._status
            if process is None:
                return
            self._listen(process, status)
            code = process.wait()
            with self._told:
                self._told.notify_all()
            if self._closing.is_set() or self._tellings == 0:
                return
            pause = _PAUSE_FIRST if time.monotonic() - born > _LIVED_LONG else min(2 * pause, _PAUSE_MOST)
            logger.error("the signer's process %d has ended (%s): it is started anew", process.pid, _cause(code))
            if self._closing.wait(pause):
                return
            self.restarts += 1
            self._spawn()

    def _listen(self, process: subprocess.Popen[bytes], status: int) -> None:
        """Hear what it says on both pipes, until it has ended."""
        assert process.stderr is not None  # noqa: S101 - `_spawn` asked for it
        heard = {status: _Lines(self._hear_status), process.stderr.fileno(): _Lines(self._hear_words)}
        while heard:
            ready, _, _ = select.select(list(heard), [], [])
            for fd in ready:
                data = os.read(fd, 65536)
                heard[fd].feed(data)
                if not data:
                    del heard[fd]
        os.close(status)
        process.stderr.close()

    def _hear_status(self, line: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError), self._told:
            self._keys = frozenset(bytes.fromhex(key) for key in json.loads(line)["keys"])
            self._tellings += 1
            self._told.notify_all()

    def _hear_words(self, line: str) -> None:
        self._last_words = line.removeprefix("tlsserver: ").removeprefix("error: ")
        logger.info("signer: %s", line)

    def _await(self, tellings: int, seconds: float) -> bool:
        """Wait until it has told its keys more often than that; False: it has ended, or the time is over."""
        until = time.monotonic() + seconds
        with self._told:
            while self._tellings <= tellings and self._is_alive() and time.monotonic() < until:
                self._told.wait(min(1.0, max(until - time.monotonic(), 0)))
            return self._tellings > tellings

    def _is_alive(self) -> bool:
        return self._watcher.is_alive()


class _Lines:
    """Takes a stream apart into lines."""

    def __init__(self, heard: object) -> None:
        self._heard = heard
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n") if data else (self._rest, b"")
        for line in lines:
            if line.strip():
                self._heard(line.decode(errors="replace").strip())  # type: ignore[operator]


def _is_secret(password: str) -> bool:
    """Tell a password from a source of one: other users of the machine can see a process's arguments."""
    return not password.startswith(("file:", "env:"))


def _end(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Let it know that we go, and wait."""
    stdin: IO[bytes] | None = process.stdin
    if stdin is not None:
        with contextlib.suppress(OSError):
            stdin.close()
    for seconds, insist in ((timeout, process.terminate), (1.0, process.kill), (None, None)):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            if insist is not None:
                insist()
        else:
            return insist is not None and insist == process.terminate
    return False


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
