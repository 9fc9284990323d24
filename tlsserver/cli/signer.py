"""`tlsserver signer`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine_shim import BatchEngine, ShimError, ThreadEngine
from engine_shim.batches import batch_lanes
from tlsserver import ClientCertificates, ServerConfig, TLSContext
from tlsserver.addresses import as_text
from tlsserver.cli import params
from tlsserver.cli.serve import LOG_LEVELS
from tlsserver.cli.supervised import Status, end_with_input
from tlsserver.errors import ConfigurationError, TLSServerError
from tlsserver.listener import bind
from tlsserver.signers.keyserver import MAX_PENDING, KeyServer
from tlsserver.signers.keyserver_access import Allowed, group_id, user_id
from tlsserver.signers.keyserver_audit import AuditLog
from tlsserver.signers.keyserver_desk import Desk
from tlsserver.signers.keyserver_keys import KeyRing, key_files
from tlsserver.signers.keyserver_local import LocalSocket, adopt
from tlsserver.signers.keyserver_process import drop_privileges, harden, lock_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from engine_shim import Engine

logger = logging.getLogger(__name__)

_OFFLOAD = ("auto", "batch", "threads", "off")
_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_PORT_MOST = 65535
_LONGEST_NUMBER = 9  # digits; Python refuses to read some thousands of them
_TLS_OPTIONS = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")


class _KeyPath(click.Path):
    """A path. An empty text is none: pathlib takes it for this folder, whose keys nobody has asked to serve."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click has it
        if not os.fspath(value):
            self.fail("it is empty: give a path", param, ctx)
        return super().convert(value, param, ctx)


@click.command("signer", context_settings={"auto_envvar_prefix": "TLSSERVER_SIGNER", "show_default": True})
@click.option(
    "--key", metavar="PATH", type=_KeyPath(path_type=Path), multiple=True, help="Private key, or a folder of them."
)
@click.option("--key-password", metavar="SOURCE", help="Of the keys: file:PATH, env:NAME, pass:TEXT, or the text.")
@click.option("--listen", metavar="unix:PATH|HOST:PORT|fd:N", multiple=True, help="Where to. Repeatable.")
@click.option(
    "--socket-group", metavar="GROUP", help="Its members may connect to Unix sockets, if --allow lets them in."
)
@click.option("--ssl-certfile", type=_PATH, help="Certificate of this server with its chain, PEM: for HOST:PORT.")
@click.option("--ssl-keyfile", type=_PATH, help="Its key.  [default: in the same file]")
@click.option("--ssl-ca-certs", metavar="PATH", type=_PATH, help="File or folder of the authorities of the clients.")
@click.option(
    "--allow",
    metavar="uid:USER|gid:GROUP|NAME",
    multiple=True,
    help="Who may sign. Repeatable.  [default: this user; over TLS, whoever the authorities have signed]",
)
@click.option(
    "--allow-decrypt", is_flag=True, help="Answer raw RSA decryptions: whoever asks can decrypt and sign all."
)
@click.option("--user", metavar="USER", help="Run as this user, when keys are read and sockets bound.")
@click.option("--group", metavar="GROUP", help="Run as this group.  [default: the user's]")
@click.option(
    "--offload", type=click.Choice(_OFFLOAD), default="auto", help="Where signatures are made; off: on the loop."
)
@click.option(
    "--offload-threads",
    type=click.IntRange(min=0, max=1024),
    help="Of the engine.  [default: one for each CPU; for batch, 1]",
)
@click.option("--audit-log", metavar="FILE|-", help="One line of JSON for each request; -: standard output.")
@click.option(
    "--max-pending", type=_COUNT, default=MAX_PENDING, help="Requests of one client that are performed at once."
)
@click.option(
    "--timeout-graceful-shutdown", type=params.seconds, default=8.0, help="For what is under way when it stops."
)
@click.option(
    "--key-grace",
    type=params.seconds,
    help="Serve keys that SIGHUP took away for so long after a new one was asked for.  [default: not at all]",
)
@click.option("--attended", is_flag=True, help="End when standard input does: it is the pipe of a parent.")
@click.option("--status-fd", type=click.IntRange(min=0), help="Descriptor for a line of JSON whenever keys were read.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS, case_sensitive=False), default="info")
def command(**options: Any) -> None:  # noqa: ANN401 - see the options above
    """Keep private keys, and sign for others, over the keyless protocol.

    Each option can also be given in the environment, as TLSSERVER_SIGNER_KEY for --key. SIGTERM finishes what is under
    way, SIGHUP reads keys and certificates anew.
    """
    logging.basicConfig(level=options["log_level"].upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    missing = harden()  # before a key is read
    if options["attended"]:
        end_with_input()
    with contextlib.ExitStack() as stack:
        asked = _Asked.of(options)
        engine = stack.enter_context(_engine(options["offload"], options["offload_threads"]))
        ring, context = asked.load(engine)
        audit = AuditLog(options["audit_log"])
        stack.callback(audit.close)
        desk = Desk(ring, audit, allow_decrypt=options["allow_decrypt"])
        server = KeyServer(desk, engine, allowed=asked.allowed, max_pending=options["max_pending"])
        stack.callback(server.close)
        shown = asked.bind(server, context, stack)
        missing += filter(None, [lock_memory()])
        asked.become(audit)
        missing += harden()  # setresuid(2) and setresgid(2) take a part of it back
        for line in dict.fromkeys(missing):
            logger.warning("%s", line)
        _serve(server, engine, asked, (ring, shown))


@dataclass(frozen=True)
class _Asked:
    """What the options come to."""

    places: tuple[Path, ...]
    password: str | None
    listen: tuple[tuple[str, Any], ...]
    allowed: Allowed
    socket_group: int | None
    user: int | None
    group: int | None
    options: dict[str, Any]

    @classmethod
    def of(cls, options: dict[str, Any]) -> _Asked:
        """Read them.

        Raises:
            ConfigurationError: They cannot work.
        """
        if not options["key"]:
            raise ConfigurationError("no key to serve: give --key PATH")
        if not options["listen"]:
            raise ConfigurationError(
                "nowhere to listen: give --listen unix:PATH, or --listen HOST:PORT with certificates"
            )
        asked = cls(
            places=options["key"],
            password=params.password(options["key_password"], "--key-password"),
            listen=_places(options["listen"]),
            allowed=Allowed.parse(options["allow"]),
            socket_group=None if options["socket_group"] is None else group_id(options["socket_group"]),
            user=None if options["user"] is None else user_id(options["user"]),
            group=None if options["group"] is None else group_id(options["group"]),
            options=options,
        )
        asked._check()
        return asked

    @property
    def is_tls(self) -> bool:
        return any(kind == "tcp" for kind, _ in self.listen)

    def _check(self) -> None:
        """Refuse what cannot work, and what does nothing: somebody believes that it does."""
        is_local = any(kind != "tcp" for kind, _ in self.listen)
        if self.is_tls:
            for name in ("ssl_certfile", "ssl_ca_certs"):
                if self.options[name] is None:
                    option = name.replace("_", "-")
                    raise ConfigurationError(
                        f"keys are served over TCP with certificates on both ends alone: give --{option}"
                    )
        for name in _TLS_OPTIONS:
            if not self.is_tls and self.options[name] is not None:
                raise ConfigurationError(f"--{name.replace('_', '-')} is for --listen HOST:PORT: leave it out")
        if self.allowed.names and not self.is_tls:
            raise ConfigurationError(
                "--allow NAME is for --listen HOST:PORT: on a Unix socket give uid:USER or gid:GROUP"
            )
        if self.allowed.is_of_this_machine and not is_local:
            raise ConfigurationError(
                "--allow uid: and gid: are for --listen unix:PATH: over TLS give a certificate's name"
            )
        if self.socket_group is not None and not self.allowed.is_of_this_machine:
            raise ConfigurationError(
                "--socket-group lets a group connect that may not sign: give --allow gid:GROUP as well"
            )

    def load(self, engine: Engine) -> tuple[KeyRing, TLSContext | None]:
        """Read keys and certificates.

        Raises:
            ConfigurationError: A file cannot be used.
            engine_shim.ShimError: A key cannot be read.
        """
        ring = KeyRing.load(key_files(self.places), self.password, engine)
        return ring, self._context() if self.is_tls else None

    def become(self, audit: AuditLog) -> None:
        """Become the user and the group that were asked for.

        Raises:
            ConfigurationError: It is not allowed.
        """
        if self.user is not None:
            with contextlib.suppress(OSError):  # said by drop_privileges; or it is no file that has an owner
                audit.give_to(self.user)
        drop_privileges(self.user, self.group)

    def _context(self) -> TLSContext:
        place = self.options["ssl_ca_certs"]
        clients = ClientCertificates(**{"ca_path" if place.is_dir() else "ca_certs": place})
        certificate = self.options["ssl_certfile"]
        params.read(certificate, "certificate", "--ssl-certfile")
        return TLSContext(certificate, self.options["ssl_keyfile"] or certificate, client_certificates=clients)

    def bind(self, server: KeyServer, context: TLSContext | None, stack: contextlib.ExitStack) -> list[str]:
        """Listen on all that was asked for; files are removed when the stack is closed.

        Returns:
            Where, for people.

        Raises:
            AddressError: It is not to be had.
        """
        shown = []
        for kind, where in self.listen:
            if kind == "unix":
                bound = LocalSocket(where, group=self.socket_group, owner=self.user)
                stack.callback(bound.remove)
                server.serve_local(listening=bound.socket)
                shown.append(f"unix:{where}")
            elif kind == "fd":
                server.serve_local(connected=adopt(where))
                shown.append(f"fd:{where}")
            elif context is not None:
                config = ServerConfig(*where)
                listening = bind(config.host, config.port, config.backlog)
                server.serve_tls(listening, context, config)
                shown.append(as_text(listening.getsockname()))
        return shown


def _places(texts: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Read what `_place` reads.

    Raises:
        ConfigurationError: One is none of them, or a socket is there twice, which cannot have two owners.
    """
    found = tuple(map(_place, texts))
    for kind, where in found:
        if kind == "fd" and found.count((kind, where)) > 1:
            raise ConfigurationError(f"--listen fd:{where} is there twice: leave one out")
    return found


def _place(text: str) -> tuple[str, Any]:
    """Read `unix:PATH`, `fd:N` or `HOST:PORT`.

    Raises:
        ConfigurationError: It is none of them.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        return "unix", Path(rest)
    if kind == "fd" and rest.isdecimal() and len(rest) <= _LONGEST_NUMBER:
        return "fd", int(rest)
    host, colon, port = text.rpartition(":")
    if colon and kind not in ("unix", "fd") and _is_port(port):
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if host:
            return "tcp", (host, int(port))
    raise ConfigurationError(f"--listen {text!r} cannot be read: give unix:PATH, HOST:PORT, [::1]:PORT or fd:NUMBER")


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= _LONGEST_NUMBER and int(text) <= _PORT_MOST


@contextlib.contextmanager
def _engine(offload: str, threads: int | None) -> Iterator[Engine]:
    engine = _make_engine(offload, threads)
    try:
        yield engine
    finally:
        engine.close()


def _make_engine(offload: str, threads: int | None) -> Engine:
    """Make the engine of the keys. A thread of its own pays where there are two CPUs: the loop has little else to do.

    Raises:
        ConfigurationError: It cannot have so many threads.
    """
    cpus = len(os.sched_getaffinity(0))
    if offload in ("auto", "off") and threads is not None:
        raise ConfigurationError(
            f"--offload-threads is for --offload batch or threads, not for {offload}: leave it out"
        )
    if offload == "auto":
        offload = "off" if cpus == 1 else "batch" if batch_lanes() else "threads"
    if offload == "threads":
        if threads == 0:
            raise ConfigurationError("--offload-threads 0 is for --offload batch: the loop performs its batches")
        return ThreadEngine(threads or cpus)
    return BatchEngine(0 if offload == "off" else 1 if threads is None else threads)


def _serve(server: KeyServer, engine: Engine, asked: _Asked, about: tuple[KeyRing, Sequence[str]]) -> None:
    ring, shown = about
    lines = [f"tlsserver signs at {', '.join(shown)}"]
    lines += [f"  key          {one.ski.hex()}  {one.type}, {one.file}" for one in ring]
    lines += [
        f"  engine       {engine.name}",
        f"  clients      {_clients(asked)}",
        "  stop         Ctrl-C; twice to stop at once",
    ]
    status = Status(asked.options["status_fd"])

    def started() -> None:
        _say(lines)
        status.tell(ring)

    with _hangups(server, engine, asked, status):
        server.run(started=started, graceful=asked.options["timeout_graceful_shutdown"])
    done = server.statistics()
    logger.info(
        "ended: %d requests signed, %d refused, %d failed, %d given up",
        done.signed,
        done.refused,
        done.failed,
        done.given_up,
    )


def _say(lines: Sequence[str]) -> None:
    """Tell on standard output what is served. Whoever started this may have closed it, and is served all the same."""
    with contextlib.suppress(OSError):
        click.echo("\n".join(lines))


def _clients(asked: _Asked) -> str:
    """Say who may sign, above all where nobody has said so."""
    allowed, told = asked.options["allow"], []
    if allowed:
        told.append(", ".join(allowed))
    if any(kind != "tcp" for kind, _ in asked.listen) and not asked.allowed.is_of_this_machine:
        told.append(f"uid:{os.geteuid()} on this machine")
    if asked.is_tls and not asked.allowed.names:
        told.append("over TLS, whoever has a certificate of the authorities in --ssl-ca-certs")
    return "; ".join(told)


@contextlib.contextmanager
def _hangups(server: KeyServer, engine: Engine, asked: _Asked, status: Status) -> Iterator[None]:
    """SIGHUP reads keys and certificates anew, on a thread: large keys take longer than a turn of the loop may."""
    one_at_a_time = threading.Lock()  # else the keys of the signal before might come last, and stay

    def reload() -> None:
        try:
            with one_at_a_time:
                ring, context = asked.load(engine)
                server.replace(ring, context, grace=asked.options["key_grace"] or 0.0)
        except (TLSServerError, ShimError, OSError) as error:
            logger.error("reload failed, the last good keys stay: %s", error)  # noqa: TRY400 - a user's mistake
            reason = str(error)
            server.call_soon_threadsafe(lambda: status.tell(server.ring, reason))
        else:
            server.call_soon_threadsafe(lambda: status.tell(server.ring))
            logger.info("keys and certificates are reloaded")

    def begin() -> None:
        server.reopen_audit_log()
        threading.Thread(target=reload, name="signer-reload", daemon=True).start()

    previous = signal.signal(signal.SIGHUP, lambda _number, _frame: server.call_soon_threadsafe(begin))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)
