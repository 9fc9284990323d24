"""What a TLS server negotiates: `tlsserver probe`."""

from __future__ import annotations

from tlsserver.probe.client import Client, UnreachableError
from tlsserver.probe.survey import Findings, make_survey

__all__ = ["Client", "Findings", "UnreachableError", "make_survey"]
