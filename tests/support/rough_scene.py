"""A plugin of pytest: the server that whole files try their worst on, one test after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_shim import ThreadEngine
from support.rough import Bystander, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadEngine]:
    with ThreadEngine() as engine:
        yield engine


@pytest.fixture(scope="module", params=["off", "threads"])
def shared(request: pytest.FixtureRequest, identity: Identity, threads: ThreadEngine) -> Iterator[Scene]:
    with Scene(identity, threads if request.param == "threads" else None, alpn=("http/1.1",)) as scene:
        yield scene


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    bystander = Bystander(shared.target())
    yield shared
    bystander.ping()
    bystander.close()
    shared.is_well()
