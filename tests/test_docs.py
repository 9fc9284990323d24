"""The documentation says what is so: the picture is the table's, options and links exist, make targets too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tlsserver.cli import COMMANDS
from tlsserver.state import as_mermaid

ROOT = Path(__file__).parent.parent
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_picture_of_a_connections_life_is_the_tables() -> None:
    text = (ROOT / "docs" / "how-a-handshake-flows.md").read_text()
    assert f"```mermaid\n{as_mermaid()}```" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    section = (ROOT / "docs" / "command-line.md").read_text().partition(f"## tlsserver {name}")[2].partition("\n## ")[0]
    options = [option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if f"`{option}" not in section and option not in section] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"`((?:tlsserver|engine_shim|tests|docs|examples)/[\w./*<>-]*)`", path.read_text()):
        if "<" not in name:
            assert list(ROOT.glob(name.rstrip("/"))), name
    for name in re.findall(r"`csrc/([\w.]+)`", path.read_text()):
        assert (ROOT / "engine_shim" / "csrc" / name).exists(), name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    known = {*targets, *(phony.group(1).split() if phony else ())}
    for names in re.findall(r"(?:^|`)make ([a-z -]+?)(?:`|\s+#|$)", path.read_text(), flags=re.MULTILINE):
        assert set(names.split()) <= known, names
