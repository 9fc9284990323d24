"""`tlsserver serve`."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import engine_shim
from engine_shim.openssl_engine import DEFAULT_ALGORITHMS
from tlsserver import ContextSettings, Reloader, Server, ServerConfig, TLSContext, local_certificate
from tlsserver.cli import app_sockets, params, problems, signers
from tlsserver.cli.app_options import app_options
from tlsserver.cli.offload import AUTO, FORMS, EngineSettings, load_key, needs_file, open_engine, resolve
from tlsserver.cli.tls_options import context_options, keys_of_names, tls_options
from tlsserver.errors import ConfigurationError
from tlsserver.policy.check import inspect, refuse
from tlsserver.protocols.http1 import protocol_factory
from tlsserver.protocols.messages import DEFAULT_LIMITS
from tlsserver.site import demo, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_shim import Engine, Key
    from tlsserver.cli.applications import Application
    from tlsserver.policy.check import Problem
    from tlsserver.policy.settings import ContextOptions
    from tlsserver.reload import Reloadable

logger = logging.getLogger(__name__)

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")

_PATH = click.Path(path_type=Path)
_SECONDS = params.seconds
_COUNT = click.IntRange(min=1)
_DEFAULT = ServerConfig()


@dataclass(frozen=True)
class Identity:
    """The certificate that is served.

    Attributes:
        certificate: Path of the certificate with its chain.
        key: Its private key, as the option says it.
        password: Of the key; None if it has none.
        about: Where it comes from, in words.
    """

    certificate: Path
    key: str
    password: str | None
    about: str


@dataclass(frozen=True)
class Made:
    """A context, and what some clients will not like of it."""

    context: TLSContext
    warnings: tuple[Problem, ...]

    def log_warnings(self) -> TLSContext:
        """Say it in the log; give the context."""
        for problem in self.warnings:
            logger.warning("%s", problem.message)
        return self.context


@dataclass(frozen=True)
class Site:
    """What is served with, whatever is served.

    Attributes:
        identity: The certificate.
        about_engine: `--offload`, in words.
        options: Of the command.
        made: The first context.
        make: Makes the next one.
    """

    identity: Identity
    about_engine: str
    options: dict[str, Any]
    made: Made
    make: Callable[[], Made]

    def banner(self, what: str, where: str) -> tuple[str, ...]:
        """Return what the user needs first: where it is, and how to recognise it. Tells warnings."""
        context = self.made.log_warnings()
        linkage = engine_shim.attach()
        return (
            f"tlsserver serves {what} at {where}",
            f"  certificate  {self.identity.about}",
            f"  SHA-256      {_fingerprint(self.identity.certificate)}",
            f"  engine       {self.about_engine}{'' if context.engine else ': OpenSSL signs on the loop'}",
            f"  linkage      {linkage.name}, {linkage.openssl_version}",
            "  stop         Ctrl-C; twice to stop at once",
        )

    def reloading(self, server: Reloadable) -> Reloader:
        """Keep a server's context as new as the files that the options name."""
        # Keys that another process reads are none of the context's files.
        sources = (
            self.identity.certificate,
            *self.made.context.files,
            self.identity.key,
            *keys_of_names(self.options),
        )
        interval = self.options["reload_interval"]
        return Reloader(server, make=lambda: self.make().log_warnings(), files=sources, interval=interval)


@click.command("serve", context_settings={"auto_envvar_prefix": "TLSSERVER", "show_default": True})
@click.argument("directory", metavar="[DIRECTORY | MODULE:ATTRIBUTE]", required=False, type=_PATH)
@click.option("--host", default=_DEFAULT.host, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=_DEFAULT.port, help="Port to listen on; 0: any free one."
)
@click.option("--ssl-certfile", "--certfile", "ssl_certfile", type=_PATH, help="Certificate with its chain, PEM.")
@click.option(
    "--ssl-keyfile",
    "--keyfile",
    "ssl_keyfile",
    metavar="PATH|engine:ID:KEY|URI",
    help="Its key: a file, a key of the ENGINE, a URI of the provider, pkcs11:..., remote:ADDRESS, or "
    "python:MODULE:FACTORY.  [default: in the same file]",
)
@click.option(
    "--ssl-keyfile-password", metavar="SOURCE", help="Of the key: file:PATH, env:NAME, pass:TEXT, or the text."
)
@tls_options
@click.option(
    "--offload", metavar=FORMS, default=AUTO, help="Engine for private-key operations; auto: what pays for this key."
)
@click.option(
    "--offload-threads",
    type=click.IntRange(min=0),
    help="Threads of the engine; 0: the loop's own (batch only).  [default: one for each CPU; for batch, 1]",
)
@click.option(
    "--engine-algorithms",
    metavar="LIST",
    help=f"What an ENGINE is made the default for, in this process; empty: nothing.  [default: {DEFAULT_ALGORITHMS}]",
)
@click.option("--engine-pre", metavar="CMD[:VALUE]", multiple=True, help="Control command before an ENGINE starts.")
@click.option("--engine-post", metavar="CMD[:VALUE]", multiple=True, help="Control command after it has started.")
@signers.signer_options
@click.option("--async-io", is_flag=True, help="Reads and writes may pause too: for engines that offload ciphers.")
@click.option(
    "--async-jobs", type=_COUNT, help="Most OpenSSL jobs at once; more connections wait.  [default: no bound]"
)
@click.option("--max-draining", type=_COUNT, help="Most closed connections whose job has not ended.")
@click.option("--max-handshakes", type=_COUNT, default=_DEFAULT.max_handshakes, help="Most at once; more wait.")
@click.option(
    "--timeout-handshake", type=_SECONDS, default=_DEFAULT.timeout_handshake, help="For a handshake, parked or not."
)
@click.option(
    "--timeout-keep-alive", type=_SECONDS, default=DEFAULT_LIMITS.timeout_keep_alive, help="Between two requests."
)
@click.option(
    "--timeout-graceful-shutdown",
    type=_SECONDS,
    default=_DEFAULT.timeout_graceful_shutdown,
    help="For what is under way when the server stops.",
)
@click.option(
    "--reload-interval",
    type=_SECONDS,
    default=5.0,
    help="Between looks at the certificate's files, which are reloaded when they change, and on SIGHUP.",
)
@click.option("--check-config", is_flag=True, help="Say all that is wrong with the configuration, and serve nothing.")
@click.option("--backlog", type=_COUNT, default=_DEFAULT.backlog, help="Connections that the kernel holds for us.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS, case_sensitive=False), default="info")
@app_options
def command(directory: Path | None, **options: Any) -> int:  # noqa: ANN401 - see the options above
    """Serve the files of DIRECTORY over HTTPS, or an application of ASGI or WSGI; without both, the demo site.

    MODULE:ATTRIBUTE is an application: what has a colon, and is no folder. The options from --app-dir on are for it.

    Each option can also be given in the environment, as TLSSERVER_PORT for --port. Without a certificate one for
    localhost is made and kept. Ctrl-C or SIGTERM finishes what is under way; a second one stops at once.
    """
    logging.basicConfig(level=options["log_level"].upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    application = None
    with contextlib.ExitStack() as stack:
        with problems.all_at_once(directory, options):
            application = problems.check_served(directory, options)
            identity = _identity(options)
            settings = _settings(options, identity)
            offload, settings, reason = resolve(options["offload"], settings, identity.key, identity.password)
            options["offload"] = offload
            engine = stack.enter_context(_engine(offload, settings))
            make = functools.partial(_context, identity, engine, options)
            made = make()
        about = f"{offload} (auto: {reason})" if reason else offload
        if options["check_config"]:
            problems.tell_warnings(made.warnings)
            click.echo("the configuration can be served")
            return 0
        site = Site(identity, about, options, made, make)
        return _serve(directory, site) if application is None else _serve_application(application, site)


def _serve(directory: Path | None, site: Site) -> int:
    def statistics() -> dict[str, Any]:
        return server.statistics().as_dict()

    options = site.options
    linkage = engine_shim.attach()
    handler = (
        files.site(directory)
        if directory
        else demo.site(statistics, options["offload"], linkage.name, linkage.openssl_version)
    )
    limits = replace(DEFAULT_LIMITS, timeout_keep_alive=options["timeout_keep_alive"])
    server = Server(site.made.context, protocol_factory(handler, limits), **_server_options(options))
    host, port = server.listen()
    lines = site.banner(str(directory or "the demo site"), params.url(host, port))
    with site.reloading(server), _collected_rarely():
        # Not before signals are heeded: who waits for these lines may send one at once.
        server.run(started=lambda: click.echo("\n".join(lines)))
    return 0


def _serve_application(application: Application, site: Site) -> int:
    from tlsserver.cli import app_server  # noqa: PLC0415 - needs the extra

    listening = app_sockets.listen(site.options)
    try:
        server = app_server.AppServer(application, site.options, site.made.context)
        lines = site.banner(f"{application.name} ({server.interface})", listening.where)
        with site.reloading(server), _collected_rarely():
            return server.serve_on(listening.socket, started=lambda: click.echo("\n".join(lines)))
    finally:
        listening.socket.close()
        listening.remove()


@contextlib.contextmanager
def _collected_rarely() -> Iterator[None]:
    """What is here now stays: the collector need not look at it again and again (some 3 % of a handshake).

    What is left at the end is collected: some of it is to be ended, as ENGINEs are.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _server_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ServerConfig` that the options set; what was not given has its default there."""
    names = ("host", "port", "max_handshakes", "timeout_handshake", "timeout_graceful_shutdown", "backlog")
    given = [name for name in ("async_jobs", "max_draining") if options[name] is not None]
    return {name: options[name] for name in (*names, *given)}


def _identity(options: dict[str, Any]) -> Identity:
    """Return the certificate that the options name, or the one for localhost."""
    certificate, key = options["ssl_certfile"], options["ssl_keyfile"]
    if certificate is None:
        if key is not None:
            raise ConfigurationError(f"key {key} has no certificate: give --ssl-certfile as well")
        is_isolated = options["offload"] == "isolated"
        made = local_certificate.made_elsewhere() if is_isolated else local_certificate.local_certificate()
        about = f"self-signed for localhost, {'made just now' if made.made else 'kept'} in {made.certificate.parent}"
        return Identity(made.certificate, str(made.key), None, about)
    key = key or str(certificate)
    params.read(certificate, "certificate", "--ssl-certfile")
    if needs_file(key, options["offload"]):
        params.read(Path(key), "key", "--ssl-keyfile")
        return Identity(certificate, key, params.password(options["ssl_keyfile_password"]), str(certificate))
    # The password of what is elsewhere is a PIN, or for another process: whoever uses it reads it.
    kind = signers.kind_for(options["offload"], key)
    password = params.password(options["ssl_keyfile_password"]) if kind is None else None
    return Identity(certificate, key, password, str(certificate))


def _settings(options: dict[str, Any], identity: Identity) -> EngineSettings:
    given = {setting: options[name] for setting, name in signers.OPTIONS.items()}
    signer = signers.SignerSettings(
        key=identity.key,
        certificate=identity.certificate,
        others=keys_of_names(options),
        password=options["ssl_keyfile_password"],
        **given,
    )
    return EngineSettings(
        signer=signer,
        threads=options["offload_threads"],
        algorithms=options["engine_algorithms"],
        pre=options["engine_pre"],
        post=options["engine_post"],
    )


@contextlib.contextmanager
def _engine(offload: str, settings: EngineSettings) -> Iterator[Engine | None]:
    engine = open_engine(offload, settings)
    try:
        yield engine
    finally:
        if engine is not None:
            engine.close()


def _context(identity: Identity, engine: Engine | None, options: dict[str, Any]) -> Made:
    key: Key | str = identity.key
    if engine is not None:
        key = load_key(engine, options["offload"], identity.key, identity.password, identity.certificate)
    settings: ContextOptions = {
        **context_options(options),
        "password": identity.password,
        "alpn": ("http/1.1",),
        "async_io": options["async_io"],
    }
    context = TLSContext(identity.certificate, key, **settings)
    about = ContextSettings(identity.certificate, identity.key, **settings)
    found = inspect(about, host=params.name_of_host(options["host"]))
    refuse(found)  # what can be loaded and is wrong all the same
    return Made(context, tuple(found))


def _fingerprint(certificate: Path) -> str:
    try:
        return local_certificate.fingerprint(certificate.read_bytes())
    except ValueError as error:  # stricter than OpenSSL, which has accepted it
        return f"unknown: {error}"
