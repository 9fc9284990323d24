"""The pages, styles and scripts that come with this package."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def text(name: str) -> str:
    """Return the asset `name`, such as "page.html"."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def csp_hash(content: str) -> str:
    """Return the Content-Security-Policy source that allows exactly this inline style or script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"
