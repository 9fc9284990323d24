"""The project's own sources, as the house rules look at them."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine_shim", "tlsserver")


class Function(NamedTuple):
    """A function of a C file: its body, from the line of its name to the closing brace."""

    name: str
    lines: list[str]


@cache
def _listed() -> tuple[Path, ...]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for path in (ROOT / name for name in sorted(set(listed.split("\0"))) if name) if path.is_file())


def files(*suffixes: str) -> tuple[Path, ...]:
    """List the project's files: what git tracks, or would if it were added.

    Args:
        suffixes: Of the wanted ones; none: all.
    """
    return tuple(path for path in _listed() if not suffixes or path.suffix in suffixes)


def relative(path: Path) -> str:
    """Name a file as the tables of the house rules do."""
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """Give the name under which a Python file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Map the names of our modules to their files."""
    return {module_name(path): path for path in files(".py") if relative(path).split("/")[0] in PACKAGES}


def imports(name: str) -> set[str]:
    """Say which modules a module imports, anywhere in it and for type checking too.

    Args:
        name: One of ours.

    Returns:
        Names of modules: ours in full (a submodule rather than its package), those of others as they are written.
    """
    package = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(parsed(modules()[name])):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (parent, node.module or "") if part)
            names = {f"{source}.{alias.name}" for alias in node.names}
            found.update(names & modules().keys())
            found.update({source} if names - modules().keys() else set())
    return found - {name}


def our_imports(name: str) -> set[str]:
    """Say which of our modules a module imports."""
    return imports(name) & modules().keys()


def without_comments(c_source: str) -> str:
    """Blank out comments, keeping lines where they are."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda match: "\n" * match[0].count("\n"), c_source, flags=re.DOTALL)


def c_functions(path: Path) -> list[Function]:
    """List the functions of a C file in the form that clang-format gives it: the closing brace in the first column."""
    found: list[Function] = []
    start = 0
    lines = without_comments(path.read_text(encoding="utf-8")).split("\n")
    for number, line in enumerate(lines):
        if line[:1].isidentifier() and "(" in line and not line.startswith("typedef"):
            start = number
        elif line == "}" and (name := re.search(r"(\w+)\(", lines[start])):
            found.append(Function(name[1], lines[start : number + 1]))
    return found
