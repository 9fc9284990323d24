"""Keys in a hardware security module, a smart card or SoftHSM2: PKCS #11.

C_Sign blocks, so threads of the signer call it, each with a session of its own; the loop only ever queues. A session
that fails is opened again, the token looked for and logged in to if need be, as long as the handshake's op has time.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from engine_shim import EngineClosedError, EngineError
from engine_shim.errors import WrongAnswerError
from tlsserver.errors import ConfigurationError
from tlsserver.signers.base import DEADLINE, Signer
from tlsserver.signers.breaker import Breaker
from tlsserver.signers.pkcs11_key import WantedKey, find_private_key
from tlsserver.signers.pkcs11_mechanism import check_mechanisms
from tlsserver.signers.pkcs11_module import pkcs11
from tlsserver.signers.pkcs11_paths import module_path
from tlsserver.signers.pkcs11_pin import pin_of
from tlsserver.signers.pkcs11_session import LostError, SigningSession
from tlsserver.signers.pkcs11_token import Token, close_session, is_lost
from tlsserver.signers.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine_shim import Key, SignRequest
    from tlsserver.stats import SignerNumbers

__all__ = ["Pkcs11Signer", "open_pkcs11"]

logger = logging.getLogger(__name__)

_MOST_THREADS = 256
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between attempts to reach a token; each is twice the one before
_LAST_ATTEMPT = 0.05  # seconds that the last one has before the op expires


class Pkcs11Signer(Signer):
    """Keys on a PKCS #11 token.

    ::

        with Pkcs11Signer("pkcs11:token=web", pin="file:/etc/tls/pin") as signer:
            context = TLSContext(certificate="server.crt", key=signer.load_key("server.crt"))

    Args:
        uri: Says which token, and maybe which key (RFC 7512); None: what the other arguments say.
        module: The module's path, before the URI's ``module-path`` and the environment's ``PKCS11_MODULE_PATH``.
        token: The token's label, where the URI has none.
        pin: Where the PIN is: ``"file:PATH"``, ``"env:NAME"`` or ``"prompt"``; as bytes, the PIN itself. None: what the
            URI says; if it says nothing either, there is no login.
        threads: Sessions that sign at the same time. Threads start as they are needed.
        deadline: Seconds for each op; see `Signer`.
        queue_size: See `Signer`.
        fallback: See `Signer`.

    Raises:
        ConfigurationError: A setting cannot work.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        uri: str | Pkcs11Uri | None = None,
        *,
        module: str | Path | None = None,
        token: str | None = None,
        pin: str | bytes | None = None,
        threads: int = 4,
        deadline: float = DEADLINE,
        queue_size: int = 1024,
        fallback: Key | Sequence[Key] | None = None,
    ) -> None:
        if not 1 <= threads <= _MOST_THREADS:
            raise ConfigurationError(f"signer pkcs11 has {threads} threads: between 1 and {_MOST_THREADS} is possible")
        said = uri if isinstance(uri, Pkcs11Uri) else Pkcs11Uri.parse(uri or "pkcs11:")
        if token is not None:
            if said.token not in (None, token):
                raise ConfigurationError(f"the URI means token {said.token!r}, not {token!r}: leave one of the two out")
            said = replace(said, token=token)
        self._uri = said
        path = module_path(None if module is None else str(module), said)
        secret = pin_of(pin, said.pin_source, said.pin_value, f"token {said.token or said.serial or 'in ' + path}")
        self._token = Token(path, said, secret)
        super().__init__("pkcs11", deadline=deadline, queue_size=queue_size, can_block=True, fallback=fallback)
        self._wanted: dict[bytes, WantedKey] = {}
        self._is_away = False
        self._most_threads = threads
        self._begin()
        _signers.add(self)

    def _begin(self) -> None:
        """Be without threads; here and in a forked child."""
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._breaker = Breaker()
        self._retries = 0

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Find the private key of a certificate on the token. Blocks: logs in at the first call.

        Args:
            source: The certificate or the public key, PEM or DER; a file's path, or the bytes.
            password: None; the token has a PIN instead.

        Returns:
            The key. It keeps the signer alive.

        Raises:
            ConfigurationError: There is no such module, token or key, the PIN is wrong, or the token cannot sign so.
            KeyLoadError: There is no certificate or public key, or it is of a kind that cannot be used.
            OSError: The file cannot be read.
        """
        key = super().load_key(source, password)
        wanted = WantedKey(key, self._uri)
        try:
            self._check(wanted)
        except pkcs11.PKCS11Error as error:
            raise ConfigurationError(self._reason(error)) from error
        self._wanted[key.key_id] = wanted
        with self._lock:
            self._more_threads()
        return key

    def _check(self, wanted: WantedKey) -> None:
        """See that the token has a key and can use it."""
        try:
            self._look(wanted)
        except (ConfigurationError, pkcs11.PKCS11Error) as error:
            if not is_lost(error):
                raise
            self._token.lost(self._token.module.generation)  # or it is newer than the module's list
            self._look(wanted)

    def _look(self, wanted: WantedKey) -> None:
        generation, token, session = self._token.session()
        try:
            with self._token.module.call():
                self._token.module.check_session(session, logged_in=self._token.is_logged_in)
                check_mechanisms(token, wanted.key.type)
                find_private_key(session, wanted, has_pin=self._token.pin is not None)
        finally:
            close_session(self._token.module, generation, session)

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Take a snapshot of the token's numbers; any thread."""
        (numbers,) = super().signers()
        with self._lock:
            breaker = self._breaker.state(time.monotonic())
        is_down = self._is_away or self._token.refused is not None
        name, state = f"pkcs11:{self._token.label}", "down" if is_down else "up"
        return (replace(numbers, name=name, state=state, breaker=breaker, retries=self._retries),)

    def close(self, timeout: float = 5.0) -> bool:
        """Stop it: what waits fails; threads end with the signature they are at, and the token is logged out.

        Args:
            timeout: How long to wait for the threads, in seconds. One that its token does not answer is left behind.
        """
        until = time.monotonic() + timeout
        self._ending.set()
        ended = super().close(timeout)
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0))
                ended = ended and not thread.is_alive()
        if ended:
            self._token.close()
        return ended

    def forked(self) -> None:
        """Begin anew in a forked child: one thread waits there, and starts the others."""
        self._token.forked()
        self._begin()
        if self._wanted and not self.closed:
            with self._lock:
                self._more_threads()

    def _more_threads(self) -> None:
        """Start one thread more if none is idle. Under the lock."""
        if self._idle == 0 and len(self._threads) < self._most_threads and not self._ending.is_set():
            # A daemon: what a token does not answer must not keep the process from ending.
            thread = threading.Thread(target=self._work, name=f"tls-pkcs11-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # without any, nobody would take a request: then `load_key` says so
                if not self._threads:
                    raise ConfigurationError(f"signer pkcs11 cannot start its thread: {error}") from error
                logger.warning("signer pkcs11 has no more than %d threads: %s", len(self._threads), error)
                return
            self._idle += 1
            self._threads.append(thread)

    def _work(self) -> None:
        """Take and perform requests: a thread's life."""
        session = SigningSession(self._token)
        with contextlib.suppress(EngineClosedError):
            while True:
                request = self.take(timeout=None)
                if request is None:
                    continue
                with self._lock:
                    self._idle -= 1
                    self._more_threads()
                self._perform(session, request)
                del request
                with self._lock:
                    self._idle += 1
        session.close()

    def _perform(self, session: SigningSession, request: SignRequest) -> None:
        """Perform one request, whatever comes of it."""
        now = time.monotonic()
        with self._lock:
            is_allowed = self._breaker.allows(now)
            is_trial = is_allowed and self._breaker.begin(now)
        if not is_allowed:
            self.give_up(request, f"token {self._token.label!r} is away")
            return
        try:
            is_well = self._try(session, request)
        except Exception as error:  # an error of this program's must not take a thread with it
            logger.exception("signer pkcs11: request %d", request.id)
            is_well = None
            self.give_up(request, f"signer pkcs11: {type(error).__name__}")
        with self._lock:
            if is_well is None:
                self._breaker.given_up(is_trial=is_trial)
            elif is_well:
                self._breaker.succeeded()
            else:
                self._breaker.failed(time.monotonic())

    def _try(self, session: SigningSession, request: SignRequest) -> bool | None:
        """Try until there is an answer, or no time left. Returns whether the token did well; None: nobody knows."""
        wait = 0.0
        wrong = 0
        while request.is_open:
            try:
                self._answer(session, request)
            except LostError as error:
                reason, is_counted = str(error), False
                logger.log(logging.DEBUG if self._is_away else logging.WARNING, "%s", reason)
                self._is_away = isinstance(error.__cause__, ConfigurationError) or wait > 0
            except WrongAnswerError:
                reason, is_counted = f"token {self._token.label!r} has given a wrong signature", True
                wrong += 1
                logger.warning("%s", reason)
            except (ConfigurationError, pkcs11.PKCS11Error, LookupError) as error:
                self.give_up(request, self._reason(error))
                return None
            else:
                return True
            # The first attempt anew is for a session that was lost alone; a fallback is quicker than any second one.
            left = request.deadline - time.monotonic() - _LAST_ATTEMPT
            is_over = left <= 0 or wrong > 1 or (wait > 0 and bool(self._fallback))
            if is_over or self._ending.wait(min(wait, left)):
                self.give_up(request, reason, is_counted=is_counted)
                return False
            wait = min(wait * 2, _LONGEST_WAIT) or _FIRST_WAIT
            with self._lock:
                self._retries += 1
        return None

    def _reason(self, error: BaseException) -> str:
        """Say what went wrong; most exceptions of python-pkcs11 have a name and no text."""
        if isinstance(error, ConfigurationError):
            return str(error)
        return f"token {self._token.label!r} fails: {type(error).__name__} {error}".rstrip()

    def _answer(self, session: SigningSession, request: SignRequest) -> None:
        with self._token.module.call():  # a fork waits for OpenSSL as well, which encodes the public key for the id
            wanted = self._wanted[request.key_id]
        answer = session.perform(request, wanted)
        self._is_away = False
        try:
            request.complete(answer, final=False)
        except WrongAnswerError:
            raise
        except EngineError:
            return  # its handshake has ended meanwhile: the token has done well


def open_pkcs11(uri: str, pin_source: str | None = None, threads: int | None = None) -> Pkcs11Signer:
    """Make a signer from what a command line says.

    Args:
        uri: ``pkcs11:...`` (RFC 7512).
        pin_source: ``file:PATH``, ``env:NAME`` or ``prompt``; None: what the URI says.
        threads: Sessions that sign at the same time; None: 4.

    Raises:
        ConfigurationError: A setting cannot work.
    """
    return Pkcs11Signer(uri, pin=pin_source, threads=4 if threads is None else threads)


_signers: weakref.WeakSet[Pkcs11Signer] = weakref.WeakSet()
_PATIENCE_AT_EXIT = 2.0  # seconds, as for the engines' own threads


def _forked() -> None:
    for signer in tuple(_signers):
        signer.forked()


def _end() -> None:
    for signer in tuple(_signers):
        signer.close(_PATIENCE_AT_EXIT)


# Behind the modules' own: they are first after a fork, and last at the end.
os.register_at_fork(after_in_child=_forked)
atexit.register(_end)
