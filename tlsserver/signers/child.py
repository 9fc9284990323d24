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
- It tells over another pipe which keys it has, each time that it has read them. What it says on standard error goes to
  our log; the last line of one that never got so far is the reason of the failure.
- It decrypts as well (TLS 1.2's RSA key exchange): it keeps the key from this process, not the key's use.
- One thread waits for its end and starts it anew, after a pause that grows while it dies at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError
from tlsserver.own_python import own_python

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SignerChild"]

logger = logging.getLogger(__name__)

# Python's start and RSA's keys take half a second; a machine that is busy with other starts takes many times that.
_START_SECONDS = 30.0
_PAUSE_FIRST, _PAUSE_MOST = 0.05, 1.0
_LIVED_LONG = 10.0  # seconds after which a death is news, and not one more of the same
_KEY_GRACE = 60.0  # seconds: the longest that a server takes from new keys to the last handshake with the old ones
_PASSWORD = "SIGNER_CHILD_PASSWORD"  # noqa: S105 - the name of a variable
_LONGEST_LINE = 65536
_LOG_LINE = re.compile(r"[-0-9]+ [:,0-9]+ (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: (?P<message>.*)")


class SignerChild:
    """The process, whoever it is at the moment. Any thread.

    Args:
        keys: Paths of the private keys, PEM or DER. They are never read here.
        password: Of the keys that are encrypted: ``file:PATH``, ``env:NAME``, ``pass:TEXT`` or the text.
        offload: The engine there, as ``--offload`` of `tlsserver signer` has it.
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
        more = [] if threads is None else [f"--offload-threads={threads}"]
        more += [] if password is None else [f"--key-password={_source(password)}"]
        self._command = [
            *own_python("from tlsserver.cli import main; main()"),
            "signer",
            *(f"--key={Path(key).absolute()}" for key in dict.fromkeys(keys)),
            *(f"--listen=unix:{self.socket}", f"--offload={offload}", f"--key-grace={_KEY_GRACE}", "--attended"),
            *("--allow-decrypt", "--log-level=warning", *more),
        ]
        self._environment = _environment(password)
        self._changed = threading.Condition()  # over what follows, down to the empty line
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._is_told = False  # by the process that there is now
        self._tellings = 0
        self._keys: frozenset[bytes] = frozenset()
        self._complaint = ""
        self.restarts = 0

        self._watcher = threading.Thread(target=self._watch, name="tls-signer-child", daemon=True)
        self._pid = os.getpid()

    @property
    def pid(self) -> int | None:
        """The process that there is now; None: there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def complaint(self) -> str:
        """What was wrong with the keys when it last read them; empty: nothing."""
        return self._complaint

    def key_ids(self) -> frozenset[bytes]:
        """Return which keys it has (`engine_shim.Key.key_id`)."""
        return self._keys

    def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            ConfigurationError: It has ended instead: a key cannot be read. The message is its own.
        """
        self._watcher.start()
        if not self._wait_for(lambda: self._is_told):
            self.close()
            raise ConfigurationError(self._complaint or "the signer's process does not begin to serve: look at the log")

    def reload(self) -> None:
        """Let it read its keys again; those that it had before it keeps for a while. Returns when it has."""
        with self._changed:
            before = self._tellings
            # One that has just been started reads the keys as they are now; it is not told so before it can hear.
            if self._process is not None and self._is_told:
                self._process.send_signal(signal.SIGHUP)  # nothing, if it has ended
        self._wait_for(lambda: self._tellings > before)

    def close(self, timeout: float = 5.0) -> bool:
        """End it: it finishes what it has in hand. Idempotent; nothing in a forked child, whose parent has it.

        Args:
            timeout: Seconds after which it is killed.

        Returns:
            Whether it has ended by itself.
        """
        if os.getpid() != self._pid:
            return True
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            process = self._process
            if process is not None:
                _close(process)  # it knows by that
        if self._watcher.is_alive():
            self._watcher.join(timeout)
        ended = not self._watcher.is_alive()
        if not ended and process is not None:
            process.kill()
            self._watcher.join(timeout)
        shutil.rmtree(self._folder, ignore_errors=True)
        return ended

    def _watch(self) -> None:
        """Start it, and start it anew, until it is not wanted any more or does not come up at all."""
        pause = _PAUSE_FIRST
        while True:
            born = time.monotonic()
            cause = self._live()
            if self._closing or self._tellings == 0:
                return
            pause = _PAUSE_FIRST if time.monotonic() - born > _LIVED_LONG else min(2 * pause, _PAUSE_MOST)
            logger.error("the signer's process has ended (%s): it is started anew", cause)
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, pause):
                    return
                self.restarts += 1

    def _live(self) -> str:
        """Let one process live; returns why it has ended."""
        try:
            started = self._spawn()
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        if started is None:
            return "it is not wanted any more"
        process, status = started
        try:
            self._listen(process, status)
            code = process.wait()
        finally:
            os.close(status)
            with self._changed:
                self._is_told = False
                _close(process)
                self._changed.notify_all()
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def _spawn(self) -> tuple[subprocess.Popen[bytes], int] | None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            with self._changed:
                if self._closing:
                    os.close(read_end)
                    return None
                self._process = subprocess.Popen(
                    [*self._command, f"--status-fd={write_end}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=self._environment,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
                return self._process, read_end
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    def _listen(self, process: subprocess.Popen[bytes], status: int) -> None:
        """Hear what it says on both pipes, until it has ended."""
        assert process.stderr is not None  # noqa: S101 - `_spawn` asked for it
        heard = {status: _Lines(self._hear_status), process.stderr.fileno(): _Lines(self._hear_words)}
        while heard:
            waiting = select.poll()
            for fd in heard:
                waiting.register(fd, select.POLLIN)
            for fd, _ in waiting.poll():
                data = os.read(fd, _LONGEST_LINE)
                heard[fd].feed(data)
                if not data:
                    del heard[fd]

    def _hear_status(self, line: str) -> None:
        told = json.loads(line)
        with self._changed:
            self._keys = frozenset(bytes.fromhex(key) for key in told["keys"])
            self._complaint = told["error"] or ""
            self._is_told = True
            self._tellings += 1
            self._changed.notify_all()

    def _hear_words(self, line: str) -> None:
        found = _LOG_LINE.fullmatch(line)
        message = found["message"] if found else line.removeprefix("tlsserver: error: ")
        if not self._is_told:
            self._complaint = message.replace(" with --key", "")  # of an option that our user does not have
        logger.log(getattr(logging, found["level"]) if found else logging.ERROR, "signer: %s", message)

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until it is true; False: it does not become so, for too long or because nobody is there any more."""
        until = time.monotonic() + _START_SECONDS
        with self._changed:
            while not condition() and self._watcher.is_alive() and time.monotonic() < until:
                self._changed.wait(0.1)  # a thread that ends tells nobody
            return condition()


class _Lines:
    """Takes a stream apart into lines."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what was read; nothing: the stream has ended."""
        *lines, rest = (self._rest + data).split(b"\n") if data else (self._rest, b"")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            if line.strip():
                self._heard(line.decode(errors="replace").strip())


def _source(password: str) -> str:
    """Say where a password is; other users of the machine can see a process's arguments."""
    return password if password.startswith(("file:", "env:")) else f"env:{_PASSWORD}"


def _environment(password: str | None) -> dict[str, str]:
    """Return the child's: ours without its options, which are all given as arguments."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TLSSERVER_SIGNER_")}
    if password is not None and _source(password) != password:
        kept[_PASSWORD] = password.removeprefix("pass:")
    return kept


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close our end of its standard input; the thread that reads the others closes them. Idempotent."""
    for pipe in (process.stdin, process.stderr if process.returncode is not None else None):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
