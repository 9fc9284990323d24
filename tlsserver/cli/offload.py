"""What `--offload` may say: the registry of engines, and how each gets its key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine_shim import (
    BatchEngine,
    LatencyEngine,
    OpenSSLEngine,
    OpenSSLProvider,
    ThreadEngine,
    batch_threads,
    choose_engine,
)
from engine_shim.openssl_engine import DEFAULT_ALGORITHMS
from tlsserver.cli import params, signers
from tlsserver.cli.signers import SignerSettings
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Engine, Key


@dataclass(frozen=True)
class EngineSettings:
    """What the options say about the engine, beside its name; None or empty where they say nothing.

    Attributes:
        threads: `--offload-threads`.
        algorithms: `--engine-algorithms`.
        pre: `--engine-pre`.
        post: `--engine-post`.
        signer: What is for signers, which are made for their keys.
    """

    threads: int | None = None
    algorithms: str | None = None
    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()
    signer: SignerSettings = field(default_factory=SignerSettings)

    def given(self, name: str) -> bool:
        """Return whether an option says something about a setting, the signer's among them."""
        return getattr(self.signer if name in signers.OPTIONS else self, name) not in (None, ())


@dataclass(frozen=True)
class EngineForm:
    """One kind of engine.

    Attributes:
        form: How the option is written.
        make: Makes the engine from what stands behind the colon (None if there is none) and from the settings;
            returns None where OpenSSL is to perform on the loop's thread.
        settings: Names of the settings that it takes.
    """

    form: str
    make: Callable[[str | None, EngineSettings], Engine | None]
    settings: frozenset[str] = frozenset()


def _off(argument: str | None, _: EngineSettings) -> None:
    _no_argument("off", argument)


def _threads(argument: str | None, settings: EngineSettings) -> Engine:
    _no_argument("threads", argument)
    return ThreadEngine(_at_least_one("threads", settings, len(os.sched_getaffinity(0))))


def _batch(argument: str | None, settings: EngineSettings) -> Engine:
    _no_argument("batch", argument)
    return BatchEngine(1 if settings.threads is None else settings.threads)


def _latency(argument: str | None, settings: EngineSettings) -> Engine:
    try:
        seconds = float(argument or "") / 1000
    except ValueError:
        raise ConfigurationError(
            f"engine latency needs a number of milliseconds, not {argument or ''!r}: write latency:200"
        ) from None
    return LatencyEngine(seconds, threads=_at_least_one("latency", settings, 1))


def _openssl_engine(argument: str | None, settings: EngineSettings) -> Engine:
    name, path = _name_and_path("engine", "ID", argument)
    algorithms = DEFAULT_ALGORITHMS if settings.algorithms is None else settings.algorithms
    return OpenSSLEngine(name, path, algorithms=algorithms, pre=settings.pre, post=settings.post)


def _openssl_provider(argument: str | None, _: EngineSettings) -> Engine:
    name, path = _name_and_path("provider", "NAME", argument)
    return OpenSSLProvider(name, path)


def _signer(kind: str) -> Callable[[str | None, EngineSettings], Engine]:
    def make(argument: str | None, settings: EngineSettings) -> Engine:
        _no_argument(kind, argument)
        threads = None if settings.threads is None else _at_least_one(kind, settings, 1)
        return signers.open_signer(kind, settings.signer, threads)

    return make


_EVERY_SIGNER = ("deadline", "fallback")

ENGINES = {
    "off": EngineForm("off", _off),
    "threads": EngineForm("threads", _threads, frozenset({"threads"})),
    "batch": EngineForm("batch", _batch, frozenset({"threads"})),
    "latency": EngineForm("latency:MS", _latency, frozenset({"threads"})),
    "engine": EngineForm("engine:ID[:PATH]", _openssl_engine, frozenset({"algorithms", "pre", "post"})),
    "provider": EngineForm("provider:NAME[:PATH]", _openssl_provider),
    "pkcs11": EngineForm("pkcs11", _signer("pkcs11"), frozenset({*_EVERY_SIGNER, "threads", "module"})),
    "remote": EngineForm(
        "remote",
        _signer("remote"),
        frozenset({*_EVERY_SIGNER, "certfile", "keyfile", "ca_certs", "server_name", "users"}),
    ),
    "isolated": EngineForm("isolated", _signer("isolated"), frozenset({*_EVERY_SIGNER, "threads"})),
    "python": EngineForm("python", _signer("python")),
}
"""The engines by name. To add one, add a row."""

AUTO = "auto"
FORMS = "|".join((AUTO, *(choice.form for choice in ENGINES.values())))

_OPTIONS = {
    "threads": "--offload-threads",
    "algorithms": "--engine-algorithms",
    "pre": "--engine-pre",
    "post": "--engine-post",
    **{setting: f"--{name.replace('_', '-')}" for setting, name in signers.OPTIONS.items()},
}


def resolve(
    text: str, settings: EngineSettings, source: str, password: str | None
) -> tuple[str, EngineSettings, str | None]:
    """Let `--offload auto` choose by the key, and `batch` its threads; whatever else they say stays as it is.

    Args:
        text: What `--offload` says.
        settings: What the other options say.
        source: What `--ssl-keyfile` says.
        password: Of the key.

    Returns:
        What `--offload` and the options come to, and the reason of the choice (None: it was not ours).

    Raises:
        ConfigurationError: An option is for an engine, which is not known yet.
        engine_shim.ShimError: It is no key, or its password is wrong.
    """
    if text == "batch" and settings.threads is None and needs_file(source, text):
        settings = replace(settings, threads=batch_threads(Path(source), password))
    if text != AUTO:
        return text, settings, None
    kind = signers.kind_of(source)
    if kind is not None:
        return kind, settings, "the key says so"
    _refuse_options(AUTO, frozenset(), settings)
    chosen = choose_engine(Path(source), password)
    return chosen.offload, replace(settings, threads=chosen.threads), chosen.reason


def open_engine(text: str, settings: EngineSettings | None = None) -> Engine | None:
    """Make the engine that `--offload` asks for.

    Args:
        text: A name, or `NAME:ARGUMENT`.
        settings: What the other options say; None: nothing.

    Returns:
        None for "off".

    Raises:
        ConfigurationError: There is no such engine, or it does not take these values.
        engine_shim.EngineUnavailableError: A third party's engine cannot be used.
        engine_shim.LinkageError: OpenSSL cannot be reached.
    """
    name, colon, argument = text.partition(":")
    if name not in ENGINES:
        raise ConfigurationError(f"engine {text!r} is unknown: choose one of {FORMS} for --offload")
    settings = settings or EngineSettings()
    _refuse_options(name, ENGINES[name].settings, settings)
    try:
        return ENGINES[name].make(argument if colon else None, settings)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"engine {text!r} cannot be made: {error}; see `tlsserver serve --help`") from error


def _refuse_options(name: str, known: frozenset[str], settings: EngineSettings) -> None:
    for setting, option in _OPTIONS.items():
        if settings.given(setting) and setting not in known:
            forms = " or ".join(choice.form for choice in ENGINES.values() if setting in choice.settings)
            raise ConfigurationError(f"{option} is for --offload {forms}, not for --offload {name}: leave it out")


def load_key(engine: Engine, offload: str, source: str, password: str | None, certificate: Path) -> Key:
    """Load the key that `--ssl-keyfile` names into the engine that `--offload` names.

    A name of an ENGINE's own (`engine:ID:KEY`) and a provider's URI go to it as they are; a signer finds the key by its
    public half.

    Args:
        engine: Where to.
        offload: What `--offload` said.
        source: What `--ssl-keyfile` said.
        password: Of the key.
        certificate: The key's.

    Raises:
        ConfigurationError: It cannot be read, or is for another engine.
        engine_shim.ShimError: It is no key, or its password is wrong.
    """
    if offload in signers.KINDS:
        return engine.load_key(_public_half(offload, certificate))
    if not needs_file(source, offload):
        return engine.load_key(_engines_key(source, offload) or source, password)
    if offload.startswith("engine:"):  # to which a path would be a name of its own
        return engine.load_key(params.read(Path(source), "key", "--ssl-keyfile"), password)
    return engine.load_key(Path(source), password)


def _public_half(offload: str, certificate: Path) -> bytes:
    data = params.read(certificate, "certificate", "--ssl-certfile")
    if b"PRIVATE KEY-----" in data:
        raise ConfigurationError(
            f"certificate {certificate} holds a private key, which --offload {offload} is to keep out of this process: "
            "move it to a file of its own"
        )
    return data


def needs_file(source: str, offload: str) -> bool:
    """Tell whether `--ssl-keyfile` names a file that is read here.

    Raises:
        ConfigurationError: It names a key of an ENGINE, of a provider or of a signer that `--offload` does not name.
    """
    kind = signers.kind_for(offload, source)
    if kind is not None:
        signers.refuse_other_keys(kind, source)
        return False
    if _engines_key(source, offload) is not None:
        return False
    if _is_uri(source) and offload.startswith("provider:"):
        return False
    if _is_uri(source) and not Path(source).exists():
        raise ConfigurationError(f"key {source!r} is a URI, which providers load: give --offload provider:NAME as well")
    return True


def _engines_key(source: str, offload: str) -> str | None:
    """Return KEY of `engine:ID:KEY`; None for anything else."""
    if not source.startswith("engine:"):
        return None
    _, _, rest = source.partition(":")
    name, _, key = rest.partition(":")
    if not name or not key:
        raise ConfigurationError(f"key {source!r} is incomplete: write engine:ID:KEY, KEY as the ENGINE names it")
    if offload.split(":")[:2] != ["engine", name]:
        raise ConfigurationError(
            f"key {source!r} is in an ENGINE that is not in use: give --offload engine:{name} as well"
        )
    return key


def _is_uri(source: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source) is not None


def _name_and_path(kind: str, what: str, argument: str | None) -> tuple[str, str | None]:
    name, colon, path = (argument or "").partition(":")
    if not name or (colon and not path):
        raise ConfigurationError(f"--offload {kind} needs a name: write {kind}:{what} or {kind}:{what}:PATH")
    return name, path or None


def _at_least_one(name: str, settings: EngineSettings, default: int) -> int:
    if settings.threads == 0:
        raise ConfigurationError(
            f"--offload-threads 0 is for --offload batch, whose batches the loop can perform, not for --offload {name}"
        )
    return settings.threads or default


def _no_argument(name: str, argument: str | None) -> None:
    if argument is not None:
        raise ConfigurationError(f"engine {name} takes nothing behind a colon, but got {argument!r}: write {name}")
