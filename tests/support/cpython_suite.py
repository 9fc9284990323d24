"""CPython's own tests of asyncio's TLS, from the Python that is installed, run with our contexts and loops.

They are not changed. Their global ``ssl`` is another one while they run, whose contexts are two in one (`Doubled`): the
standard library's for the blocking sockets of the tests' threads, and ours beside it, configured with the same calls. A
loop hands ours to our functions where the configuration says so: at the server's end, or at both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import ssl
import types
import unittest
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from unittest import mock

import tlsserver.asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

__all__ = ["ROWS", "SERVERS", "Configuration", "Doubled", "Row", "names", "row_of", "run", "source_of"]

# Modules of test.test_asyncio, and what is taken of them: a part of the test's name, in lower case.
# Classes that differ in their loop alone, which is the configuration's.
SAME = ("PollEventLoopTests", "SelectEventLoopTests")

MODULES = {
    "test_ssl": ("",),
    "test_sslproto": ("",),
    "test_events": ("ssl",),
    "test_streams": ("ssl", "start_tls"),
    "test_sendfile": ("ssl",),
    "test_unix_events": ("ssl",),
    "test_base_events": ("ssl",),
    "test_selector_events": ("ssl",),
}

# What is run where the servers alone are ours: all others have none.
SERVERS = (
    "test_events.*.test_create_*server_ssl*",
    "test_events.*.test_ssl_connect_accepted_socket",
    "test_sendfile.*",
    "test_ssl.*.test_create_server_ssl_1",
    "test_ssl.*.test_start_tls_server_1",
    "test_sslproto.*.test_start_tls_server_1",
    "test_streams.*.test_start_tls",
)


@dataclass(frozen=True)
class Row:
    """Why a test does not apply.

    Attributes:
        reason: Why.
        sign: What of the test's source shows it; such a test is not run. Empty: it is run, and must show it.
        fails_with: What a test that is run fails with; empty: it works, and never uses a context of ours.
    """

    reason: str
    sign: str = ""
    fails_with: str = ""


_NO_TLS = Row("looks at a protocol or loop of the standard library's alone, mostly a mock")
_ARGUMENTS = Row("arguments that are refused before there is a context, or with the standard library's")
_NAME_OF_CLASS = Row("looks for SSL in the name of the transport's class", fails_with="False is not true")
_WORDING = Row("other words: ours say where the time went", fails_with="not finished within")
_SENDFILE = Row(
    "loop.sendfile() takes transports of private classes alone, and uvloop's none at all",
    fails_with="sendfile is not supported|NotImplementedError",
)

ROWS = {
    "test_base_events.*": _NO_TLS,
    "test_selector_events.*": _NO_TLS,
    "test_unix_events.*": _ARGUMENTS,
    "test_events.*.test_connect_accepted_socket_ssl_timeout_for_plain_socket": _ARGUMENTS,
    "test_events.*.test_create_ssl_connection": _NAME_OF_CLASS,
    "test_events.*.test_create_ssl_unix_connection": _NAME_OF_CLASS,
    "test_sendfile.*": _SENDFILE,
    "test_ssl.*.test_connect_accepted_socket": Row("without TLS"),
    "test_ssl.*.test_connect_timeout_warning": Row("its server never accepts, and its client has no TLS of ours"),
    "test_ssl.*.test_ssl_connect_accepted_socket": Row("makes two contexts and ends"),
    "test_*.*.test_create_connection_ssl_slow_handshake": _WORDING,
    "test_ssl.*.test_create_server_ssl_over_ssl": Row("TLS within TLS is refused by name", sign="start_tls("),
    "test_ssl.*.test_flush_before_shutdown": Row("reaches into the SSLProtocol", sign="._ssl_protocol"),
    "test_ssl.*.test_remote_shutdown_receives_trailing_data": Row(
        "calls a method of uvloop's tests", sign="_test__append_write_backlog"
    ),
    "test_ssl.*.test_shutdown_timeout_handler_not_set": Row(
        "its server cuts the stream off and wants to see nothing more; OpenSSL answers that with an alert, which may or"
        " may not come before the end (the standard library never sends it)",
        sign="sock.shutdown(socket.SHUT_WR)",
    ),
    "test_sslproto.SslProtoHandshakeTests.*": _NO_TLS,
    "test_sslproto.SelectorStartTLSTests.test_buf_feed_data": Row("looks at a function alone", sign="_feed_data_to"),
    "test_sslproto.ProactorStartTLSTests.*": Row("for Windows alone", sign="ProactorEventLoop"),
}


def _both(name: str) -> property:
    """Make a property that is set on both contexts."""
    standard: Any = getattr(ssl.SSLContext, name)

    def change(context: Doubled, value: object) -> None:
        standard.__set__(context, value)
        setattr(context.ours, name, value)

    return property(standard.__get__, change)


class Doubled(ssl.SSLContext):
    """Two contexts, configured alike."""

    ours: tlsserver.asyncio.SSLContext

    def __new__(cls, protocol: Any = ssl.PROTOCOL_TLS_CLIENT) -> Self:
        made = super().__new__(cls, protocol)
        made.ours = tlsserver.asyncio.SSLContext(protocol, offload="threads")  # every handshake of a server parks
        return made

    verify_mode = _both("verify_mode")
    check_hostname = _both("check_hostname")
    options = _both("options")

    def load_cert_chain(self, *args: Any, **named: Any) -> None:
        super().load_cert_chain(*args, **named)
        self.ours.load_cert_chain(*args, **named)

    def load_verify_locations(self, *args: Any, **named: Any) -> None:
        super().load_verify_locations(*args, **named)
        self.ours.load_verify_locations(*args, **named)


class _DoubledSSL(types.ModuleType):
    """The module ``ssl`` with other contexts."""

    SSLContext = Doubled

    @staticmethod
    def create_default_context() -> Doubled:
        """Make a client's; who is to be trusted is the test's to say."""
        return Doubled(ssl.PROTOCOL_TLS_CLIENT)

    def __getattr__(self, name: str) -> Any:
        return getattr(ssl, name)


class Configuration:
    """One way to run the suite.

    Attributes:
        handed: How often a loop was given one of our contexts.
    """

    def __init__(self, base: Callable[[], asyncio.AbstractEventLoop], *, clients: bool) -> None:
        """Choose.

        Args:
            base: Makes plain loops.
            clients: Whether clients are ours as well.
        """
        self.handed = 0
        self._factory = tlsserver.asyncio.loop_factory(base)
        self._clients = clients

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop that exchanges the contexts."""
        loop: Any = self._factory()
        if not hasattr(loop, "_default_executor"):
            loop._default_executor = None  # where the tests of CPython look for one to be shut down
        for name in ("create_server", "create_unix_server", "connect_accepted_socket"):
            self._exchange(loop, name, server=True)
        for name in ("create_connection", "create_unix_connection"):
            self._exchange(loop, name, server=False)
        self._exchange(loop, "start_tls", server=None)
        made: asyncio.AbstractEventLoop = loop
        return made

    def _exchange(self, loop: Any, name: str, *, server: bool | None) -> None:
        original = getattr(loop, name)

        async def call(*args: Any, **named: Any) -> Any:
            is_server = named.get("server_side", False) if server is None else server
            if is_server or self._clients:
                args = tuple(map(self._ours, args))
                named = {key: self._ours(value) for key, value in named.items()}
            return await original(*args, **named)

        setattr(loop, name, call)

    def _ours(self, value: object) -> object:
        if not isinstance(value, Doubled):
            return value
        self.handed += 1
        return value.ours

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Let loops and contexts of the suite be ours."""
        doubled = _DoubledSSL("ssl")
        with contextlib.ExitStack() as stack:
            for owner in (asyncio, asyncio.events):
                stack.enter_context(mock.patch.object(owner, "new_event_loop", self.new_loop))
            for name in ("utils", *MODULES):
                module = importlib.import_module(f"test.test_asyncio.{name}")
                if hasattr(module, "ssl"):
                    stack.enter_context(mock.patch.object(module, "ssl", doubled))
            yield


def names(patterns: tuple[str, ...] = ("*",)) -> list[str]:
    """Name the tests of the suite that fit, as ``module.Class.test``."""
    found = []
    for name, parts in MODULES.items():
        module = importlib.import_module(f"test.test_asyncio.{name}")
        for kind in vars(module).values():
            if not (isinstance(kind, type) and issubclass(kind, unittest.TestCase)) or kind.__name__ in SAME:
                continue
            if kind.__module__ == module.__name__:
                tests = unittest.defaultTestLoader.getTestCaseNames(kind)
                found += [f"{name}.{kind.__name__}.{one}" for one in tests if any(part in one for part in parts)]
    return sorted(name for name in found if any(fnmatchcase(name, pattern) for pattern in patterns))


def row_of(name: str) -> Row | None:
    """Return why a test does not apply; None: it does."""
    return next((row for pattern, row in ROWS.items() if fnmatchcase(name, pattern)), None)


def _class_of(name: str) -> tuple[type[unittest.TestCase], str]:
    module, kind, test = name.split(".")
    return getattr(importlib.import_module(f"test.test_asyncio.{module}"), kind), test


def source_of(name: str) -> str:
    """Return the source of a test, and of its class's other loops."""
    kind, test = _class_of(name)
    return inspect.getsource(getattr(kind, test)) + inspect.getsource(kind)


def run(name: str, configuration: Configuration) -> unittest.TestResult:
    """Run one test."""
    kind, test = _class_of(name)
    loops = [method for method in ("new_loop", "create_event_loop") if hasattr(kind, method)]
    made = type(kind.__name__, (kind,), {method: lambda _self: configuration.new_loop() for method in loops})
    result = unittest.TestResult()
    with configuration.active(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unittest.TestSuite([made(test)]).run(result)  # with what the class and the module set up
        gc.collect()  # what it has left unclosed is no concern of the tests that come after
    return result
