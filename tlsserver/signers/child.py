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
  its own, so that Ctrl-C at the terminal does not reach it before our last handshake is done. Forked children of ours
  let go of the pipe. The child removes the folder as well: we may have been killed.
- It tells over another pipe which keys it has, each time that it has read them. What it says on standard error goes to
  our log; the last line of one that never got so far is the reason of the failure.
- It decrypts as well (TLS 1.2's RSA key exchange): it keeps the key from this process, not the key's use.
- One thread waits for its end and starts it anew, after a pause that grows while it dies at once. One that does not
  come up in time is ended.
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
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError
from tlsserver.own_python import own_python
from tlsserver.signers.seldom import Seldom

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
_LONGEST_PATH = 107  # bytes of a Unix socket's: unix(7)
_LOG_LINE = re.compile(r"[-0-9]+ [:,0-9]+ (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: (?P<message>.*)")

_OPTION = re.compile(r" with --key(-password)?\b")  # which our user does not have


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
        paths = [_absolute(key) for key in dict.fromkeys(keys)]
        program = own_python(
            "from tlsserver.cli.supervised import remove_with_input; remove_with_input(sys.argv.pop(1))"
        )
        program[-1] += "; from tlsserver.cli import main; main()"
        self._folder = _new_folder()
        self.socket = self._folder / "signer.sock"
        more = [] if threads is None else [f"--offload-threads={threads}"]
        more += [] if password is None else [f"--key-password={_source(password)}"]
        self._command = [
            *program,
            str(self._folder),
            "signer",
            *(f"--key={path}" for path in paths),
            *(f"--listen=unix:{self.socket}", f"--offload={offload}", f"--key-grace={_KEY_GRACE}", "--attended"),
            *("--allow-decrypt", "--log-level=warning", *more),
        ]
        self._environment = _environment(password)
        self._changed = threading.Condition()  # over what follows, down to the empty line
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._is_told = False  # by the process that there is now
        self._was_up = False  # until its end was told of
        self._tellings = 0
        self._keys: frozenset[bytes] = frozenset()
        self._complaint = ""
        self.restarts = 0

        self._one_reload = threading.Lock()
        self._seldom = Seldom()
        self._watcher = threading.Thread(target=self._watch, name="tls-signer-child", daemon=True)
        self._pid = os.getpid()
        _living.add(self)

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
            late = f"the signer's process does not begin to serve within {_START_SECONDS:g} s: look at the log"
            raise ConfigurationError(self._complaint or late)

    def reload(self) -> None:
        """Let it read its keys again; those that it had before it keeps for a while. Returns when it has."""
        with self._one_reload:  # else what it tells might be the answer to the question before
            restarts = self.restarts
            # It hears no signal before it has told its keys, and may have read them a moment ago.
            self._wait_for(lambda: self._is_told or self.restarts > restarts + 1)
            with self._changed:
                before = self._tellings
                if self._process is not None and self._is_told:
                    self._process.send_signal(signal.SIGHUP)  # nothing, if it has ended
            # Started anew, it reads them as well; if it ends once more, it cannot.
            self._wait_for(lambda: self._tellings > before or self.restarts > restarts + 1)

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
            self._tell_end(cause)
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, pause):
                    return
                self.restarts += 1

    def _tell_end(self, cause: str) -> None:
        """Say that it has ended; one that cannot start does so again and again."""
        was_up, self._was_up = self._was_up, False
        if (more := self._seldom.more("ended" if was_up else "not started")) is not None:
            why = cause if was_up or not self._complaint else f"{cause}: {self._complaint}"
            logger.error("the signer's process has ended (%s): it is started anew%s", why, more)

    def _live(self) -> str:
        """Let one process live; returns why it has ended."""
        try:
            started = self._spawn()
        except (OSError, ValueError) as error:  # ValueError: a password or path with a null byte
            why = getattr(error, "strerror", None) or error
            self._complaint = f"the signer's process cannot be started: {why}"
            return "it was not started"
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
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    def _listen(self, process: subprocess.Popen[bytes], status: int) -> None:
        """Hear what it says on both pipes, until it has ended."""
        assert process.stderr is not None  # noqa: S101 - `_spawn` asked for it
        heard = {status: _Lines(self._hear_status), process.stderr.fileno(): _Lines(self._hear_words)}
        late = time.monotonic() + _START_SECONDS
        while heard:
            waiting = select.poll()
            for fd in heard:
                waiting.register(fd, select.POLLIN)
            left = late - time.monotonic()
            if left < 0 and not self._is_told:
                process.kill()  # then the pipes end
            for fd, _ in waiting.poll(None if self._is_told else max(left, 0.1) * 1000):
                data = os.read(fd, _LONGEST_LINE)
                heard[fd].feed(data)
                if not data:
                    del heard[fd]

    def _hear_status(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return  # it was killed while it said that
        with self._changed:
            self._keys = frozenset(bytes.fromhex(key) for key in told["keys"])
            self._complaint = told["error"] or ""
            self._is_told = self._was_up = True
            self._tellings += 1
            self._changed.notify_all()

    def _hear_words(self, line: str) -> None:
        found = _LOG_LINE.fullmatch(line)
        message = found["message"] if found else line.removeprefix("tlsserver: error: ")
        level = getattr(logging, found["level"]) if found else logging.ERROR
        if not self._is_told and level >= logging.ERROR:
            self._complaint = _OPTION.sub("", message)
            if self.restarts:
                return  # `_tell_end` says it, but not each time
        logger.log(level, "signer: %s", message)

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


def _absolute(key: str | Path) -> Path:
    if not os.fspath(key):
        raise ConfigurationError("the path of a private key is empty: give the path of a file")
    return Path(key).absolute()


def _new_folder() -> Path:
    """Make a folder that we alone can enter: mkdtemp(3).

    Raises:
        ConfigurationError: It cannot be made, or no socket can be in it.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="tlsserver-signer-"))
    except OSError as error:
        raise ConfigurationError(f"no folder for the signer's socket can be made: {error.strerror}") from error
    if len(os.fsencode(folder / "signer.sock")) > _LONGEST_PATH:
        folder.rmdir()
        raise ConfigurationError(
            f"folder {folder.parent} has too long a path for the signer's socket in it: let TMPDIR name another"
        )
    return folder


def _source(password: str) -> str:
    """Say where a password is; other users of the machine can see a process's arguments."""
    if password.startswith("file:"):
        return f"file:{Path(password.removeprefix('file:')).absolute()}"
    return password if password.startswith("env:") else f"env:{_PASSWORD}"


def _environment(password: str | None) -> dict[str, str]:
    """Return the child's: ours without its options, which are all given as arguments."""
    source = "" if password is None else _source(password)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TLSSERVER_SIGNER_") or source == f"env:{name}"
    }
    if password is not None and source == f"env:{_PASSWORD}" != password:
        kept[_PASSWORD] = password.removeprefix("pass:")
    return kept


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close our end of its standard input; the thread that reads the others closes them. Idempotent."""
    for pipe in (process.stdin, process.stderr if process.returncode is not None else None):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


_living: weakref.WeakSet[SignerChild] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: the process is its parent's, and shall see that one's end. Locks may have been held."""
    for one in tuple(_living):
        one._changed, one._one_reload = threading.Condition(), threading.Lock()  # noqa: SLF001 - this module's own
        process = one._process  # noqa: SLF001 - this module's own
        if process is not None:
            _close(process)


os.register_at_fork(after_in_child=_after_fork)
