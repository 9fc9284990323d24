"""Signers that are named on the command line; every mistake is one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tlsserver.errors import ConfigurationError
from tlsserver.signers.callable import CallableSigner
from tlsserver.signers.load import load_factory, make_signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = "a_signer_of_the_tests"

SOURCE = '''
from tlsserver.signers.callable import CallableSigner
from tlsserver.errors import ConfigurationError

called_with = []


def sign(request):
    return b""


async def sign_later(request):
    return b""


def make_function(certificate):
    called_with.append(certificate)
    return sign


def make_coroutine_function(certificate):
    return sign_later


def make_signer(certificate):
    return CallableSigner(sign, name="mine")


class Deep:
    factory = staticmethod(make_function)


def make_nothing(certificate):
    """Forgets to return."""


def leave(certificate):
    raise SystemExit("no more")


def make_key(certificate):
    return b"the key itself"


def __getattr__(name):
    if name == "lazy":
        raise OSError("not today")
    raise AttributeError(name)


def fail(certificate):
    raise OSError("no token\\nis there")


def complain(certificate):
    raise ConfigurationError("KMS_URL is not set: set it")


def needs_more(certificate, token):
    return sign


number = 5
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_module_of_the_current_directory_is_found() -> None:
    factory = load_factory(f"{MODULE}:make_function")
    assert factory.__name__ == "make_function"
    assert load_factory(f"{MODULE}:Deep.factory") is factory


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ("make_function", f"{MODULE}:make_function"),
        ("make_coroutine_function", f"{MODULE}:make_coroutine_function"),
        ("make_signer", "mine"),
    ],
)
def test_factory_makes_a_signer(factory: str, name: str, tmp_path: Path) -> None:
    with make_signer(f"{MODULE}:{factory}", tmp_path / "server.crt") as signer:
        assert isinstance(signer, CallableSigner)
        assert signer.name == name


def test_factory_is_told_the_certificate(tmp_path: Path) -> None:
    make_signer(f"{MODULE}:make_function", tmp_path / "server.crt").close()
    assert sys.modules[MODULE].called_with == [str(tmp_path / "server.crt")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module", "not of the form module:factory"),
        (":factory", "not of the form module:factory"),
        ("module:", "not of the form module:factory"),
        ("no_such_module_anywhere:make", "there is no module no_such_module_anywhere: it must be installed, or in /"),
        ("os.nothing:make", "there is no module os.nothing"),
        (f"{MODULE}:nothing", f"there is no nothing in module {MODULE}"),
        (f"{MODULE}:Deep.nothing", f"there is no Deep.nothing in module {MODULE}"),
        (f"{MODULE}:number", "number is a int, it must be a function that makes a signer"),
        (f"{MODULE}:leave", "the factory raised SystemExit: no more"),
        (f"{MODULE}:make_key", "the factory returned a bytes, it must return a function or a Signer"),
        (f"{MODULE}:lazy", "lazy cannot be had of module a_signer_of_the_tests: OSError: not today"),
        (f"{MODULE}:make_nothing", "the factory returned a NoneType, it must return a function or a Signer"),
        (f"{MODULE}:fail", "the factory raised OSError: no token is there"),
        (f"{MODULE}:complain", "KMS_URL is not set: set it"),
        (f"{MODULE}:needs_more", "the factory raised TypeError"),
        ("..relative:make", "cannot be imported: TypeError"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_signer(name, "server.crt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library_anywhere", "cannot be imported: ModuleNotFoundError: No module named"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("raise SystemExit(2)", "cannot be imported: SystemExit: 2"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_module_that_cannot_be_imported(source: str, message: str, folder: Path) -> None:
    (folder / f"{MODULE}.py").write_text(source)
    with pytest.raises(ConfigurationError) as caught:
        make_signer(f"{MODULE}:make", "server.crt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
