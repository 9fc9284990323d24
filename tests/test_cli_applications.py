"""How `tlsserver serve` finds an application, and tells its interface."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import asgi_app
from tlsserver.cli import applications
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = {
    "good": "async def app(scope, receive, send): ...\nclass inner: app = app\ndef make(): return app\nvalue = 1\n",
    "needs_more": "import surely_not_there\n",
    "broken": "def f(:\n",
    "fails": "raise RuntimeError('no database')\n",
    "leaves": "import sys\nsys.exit('bye')\n",
    "factories": "def fails():\n    raise OSError('no disk')\ndef nothing(): return None\ndef make():\n"
    "    async def app(scope, receive, send): ...\n    return app\n"
    "def leaves():\n    raise SystemExit('bye')\nasync def later(): ...\n",
    "lazy": "def __getattr__(name):\n    raise RuntimeError('no ' + name)\n",
    "leaves_lazily": "def __getattr__(name):\n    raise SystemExit('bye')\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules that are forgotten afterwards."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in (*MODULES, "package"):
        sys.modules.pop(name, None)


def find(folder: Path, name: str, *, factory: bool = False, interface: str = "auto") -> applications.Application:
    return applications.find(name, app_dir=str(folder), factory=factory, interface=interface)


@pytest.mark.parametrize("name", ["good:app", "good:inner.app"])
def test_found(folder: Path, name: str) -> None:
    app, interface = find(folder, name).make()
    assert (app.__name__, interface) == ("app", "asgi3")


def test_a_factory_is_called_when_it_is_served(folder: Path) -> None:
    found = find(folder, "factories:make", factory=True)
    app, interface = found.make()
    assert (app.__name__, interface) == ("app", "asgi3")


def test_without_a_folder_it_is_looked_for_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert applications.find("good:app", app_dir="", factory=False, interface="auto").make()[1] == "asgi3"


def test_its_folder_comes_before_all_others(folder: Path, tmp_path: Path) -> None:
    """Also before those that PYTHONPATH names before it."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "good.py").write_text("def app(environ, start_response): ...\n")
    sys.path[:0] = [str(other), str(folder)]
    assert find(folder, "good:app").make()[1] == "asgi3"


MISTAKES = {
    "nothing behind the colon": ("good:", False, "write MODULE:ATTRIBUTE"),
    "nothing before the colon": (":app", False, "write MODULE:ATTRIBUTE"),
    "no such module": ("absent:app", False, "there is no module 'absent' in .*; give its folder with --app-dir"),
    "no such module in a package": ("package.absent:app", False, "there is no module 'package.absent'"),
    "no such package": ("absent.inner:app", False, "there is no module 'absent'"),
    "a path": ("./good:app", False, "write MODULE:ATTRIBUTE"),
    "no such attribute": ("good:application", False, "good has no 'application'"),
    "no such inner attribute": ("good:inner.absent", False, "good has no 'inner.absent'"),
    "a module that it needs": (
        "needs_more:app",
        False,
        r"imported: ModuleNotFoundError: No module named 'surely_not_there' \(needs_more.py, line 1\)",
    ),
    "a syntax error": ("broken:app", False, r"imported: SyntaxError: .* \(broken.py, line 1\); --log-level"),
    "an attribute that fails": (
        "lazy:app",
        False,
        r"'app' cannot be looked up: RuntimeError: no app \(lazy.py, line 2",
    ),
    "an attribute that exits": ("leaves_lazily:app", False, "'app' cannot be looked up: SystemExit: bye"),
    "an error": ("fails:app", False, r"imported: RuntimeError: no database \(fails.py, line 1\); --log-level debug"),
    "an exit": ("leaves:app", False, "imported: SystemExit: bye"),
    "no function": ("good:value", False, "of type int, and cannot be called"),
    "a factory": ("good:make", False, "give --factory"),
    "a factory that fails": ("factories:fails", True, "the factory has failed: OSError: no disk"),
    "a factory that exits": ("factories:leaves", True, "the factory has failed: SystemExit: bye"),
    "a factory that is awaited": ("factories:later", True, "the factory is a coroutine function: give a plain one"),
    "a factory of nothing": ("factories:nothing", True, "the factory's result is of type NoneType"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(folder: Path, mistake: str) -> None:
    name, factory, words = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as told:
        find(folder, name, factory=factory).make()
    assert re.search(words, str(told.value)), told.value
    assert "\n" not in str(told.value)


class AsgiClass:
    """Its instances are applications of ASGI 3."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class ForwardsToAsgi:
    """The same, without being a coroutine function."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return asgi_app.app(scope, receive, send)


class Asgi2Class:
    """Of ASGI 2: made with the scope, then called."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class WsgiClass:
    """PEP 3333: the class is the application."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...


class WsgiInstance:
    """What Flask and Django have."""

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


KINDS: dict[str, tuple[Any, str]] = {
    "coroutine function": (asgi_app.app, "asgi3"),
    "partial": (functools.partial(asgi_app.app), "asgi3"),
    "instance": (AsgiClass(), "asgi3"),
    "bound method": (AsgiClass().__call__, "asgi3"),
    "forwards": (ForwardsToAsgi(), "asgi3"),
    "function of ASGI 2": (asgi_app.asgi2, "asgi2"),
    "class of ASGI 2": (Asgi2Class, "asgi2"),
    "function of WSGI": (asgi_app.wsgi, "wsgi"),
    "instance of WSGI": (WsgiInstance(), "wsgi"),
    "class of WSGI": (WsgiClass, "wsgi"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_interface_is_told(kind: str) -> None:
    app, expected = KINDS[kind]
    assert applications.Application("here:app", app, factory=False, interface="auto").make() == (app, expected)


@pytest.mark.parametrize("app", [asgi_app.no_arguments_needed, print], ids=["any arguments", "built in"])
def test_who_cannot_be_told_is_asked_for(app: Any) -> None:
    with pytest.raises(ConfigurationError, match="give --interface asgi3, asgi2 or wsgi"):
        applications.Application("here:app", app, factory=False, interface="auto").make()
    assert applications.Application("here:app", app, factory=False, interface="wsgi").make() == (app, "wsgi")


def test_folders_come_before_applications(tmp_path: Path) -> None:
    (tmp_path / "main:app").mkdir()
    assert not applications.is_named(tmp_path / "main:app")
    assert not applications.is_named(tmp_path)
    assert not applications.is_named(None)
    assert applications.is_named(Path("main:app"))
