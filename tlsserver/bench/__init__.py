"""A handshake load generator: `tlsserver bench`."""

from __future__ import annotations

from tlsserver.bench.addresses import Target, find_target, sources
from tlsserver.bench.client import Client
from tlsserver.bench.crew import Crew
from tlsserver.bench.load import Load
from tlsserver.bench.settings import Close, Settings
from tlsserver.bench.tally import Tally

__all__ = ["Client", "Close", "Crew", "Load", "Settings", "Tally", "Target", "find_target", "sources"]
