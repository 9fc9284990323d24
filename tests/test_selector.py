"""selectors2, loaded where it cannot be imported."""

from __future__ import annotations

import ast
import collections
import collections.abc
import importlib
import os
import selectors
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tlsserver import selector
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget selectors2, for this test only."""
    monkeypatch.delitem(sys.modules, "selectors2", raising=False)


@pytest.mark.usefixtures("unloaded")
def test_loads_and_leaves_collections_alone() -> None:
    before = dict(vars(collections))
    module = selector.load_selectors2()
    assert vars(collections) == before
    assert module.__version__
    assert module.DefaultSelector().get_map() is not None


@pytest.mark.usefixtures("unloaded")
def test_a_plain_import_then_finds_the_same_module() -> None:
    module = selector.load_selectors2()
    assert importlib.import_module("selectors2") is module
    assert selector.load_selectors2() is module


@pytest.mark.usefixtures("unloaded")
def test_threads_get_the_same_module() -> None:
    start = threading.Barrier(8)
    found: list[ModuleType] = []

    def load() -> None:
        start.wait()
        found.append(selector.load_selectors2())

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_is_silent_in_a_strict_interpreter() -> None:
    code = (
        "import tlsserver.selector as s, collections as c; s.new_selector().close(); assert not hasattr(c, 'Mapping')"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-bb", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_numbers_are_the_standard_ones() -> None:
    module = selector.load_selectors2()
    assert module.EVENT_READ == selectors.EVENT_READ == selector.EVENT_READ
    assert module.EVENT_WRITE == selectors.EVENT_WRITE == selector.EVENT_WRITE


def test_only_the_broken_statement_is_changed() -> None:
    source = "import os\nfrom collections import namedtuple, Mapping\nfrom collections import deque\nx = 1\n"
    rewritten = ast.unparse(selector._with_abc_imports(source))
    assert rewritten.splitlines() == [
        "import os",
        "from collections import namedtuple",
        "from collections.abc import Mapping",
        "from collections import deque",
        "x = 1",
    ]


def test_a_repaired_release_goes_through_unchanged() -> None:
    source = "from collections import namedtuple\nfrom collections.abc import Mapping\n"
    assert ast.unparse(selector._with_abc_imports(source)) == source.strip()


@pytest.mark.usefixtures("unloaded")
def test_not_installed_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="pip install selectors2") as caught:
        selector.new_selector()
    assert "\n" not in str(caught.value)


def test_names() -> None:
    for name in selector.SELECTORS:
        made = selector.new_selector(name)
        read, write = os.pipe()
        made.register(read, selector.EVENT_READ, name)
        os.write(write, b"x")
        [(key, events)] = made.select(0)
        assert (key.data, events) == (name, selector.EVENT_READ)
        made.close()
        os.close(read)
        os.close(write)


def test_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigurationError, match="unknown selector 'kqueue9': choose one of selectors2"):
        selector.new_selector("kqueue9")
