"""The versions of installed packages."""

from __future__ import annotations

from importlib import metadata


def version(package: str = "tlsserver") -> str:
    """Return the version of `package`; "not installed" if it is run from its source, or is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
