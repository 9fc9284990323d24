"""The ENGINE afalg, of OpenSSL itself: AES-CBC in the kernel, asynchronously, where the kernel offers AF_ALG."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_dasync import CONTEXT, browser, check_nothing_left, exchange, parks, say_goodbye, until_gone

import engine_shim
from engine_shim.openssl_engine import engines_folder
from support.engine_server import EngineServer
from support.storm import Storm

if TYPE_CHECKING:
    from support.certificates import Certificates

CLIENTS, ROUNDS = 25, 4


@pytest.fixture
def afalg() -> str:
    """Give its id; skips where it cannot work, and says why."""
    if engine_shim.attach().name != "shared":
        pytest.skip("ENGINEs need the shared linkage")
    file = Path(engines_folder(), "afalg.so")
    if not file.exists():
        pytest.skip(f"this OpenSSL comes without {file.name}")
    try:
        with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as kernel:
            kernel.bind(("skcipher", "cbc(aes)"))
    except (AttributeError, OSError) as error:
        pytest.skip(f"the kernel offers no AES-CBC by AF_ALG: {error}")
    return "afalg"


def test_reads_and_writes(afalg: str, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    reports = []
    with EngineServer(identity, {"engine_id": afalg, "algorithms": "CIPHERS"}, CONTEXT) as server:
        for _ in range(ROUNDS):
            with Storm(server.address, CLIENTS, browser(identity)) as storm:
                storm.handshake()
                shaken = parks(server.report())
                for seed in range(3):
                    exchange(storm, seed)
                assert parks(server.report()) > shaken
                say_goodbye(storm)
            reports.append(until_gone(server))
        assert reports[-1]["statistics"]["handshakes_completed"] == CLIENTS * ROUNDS
        check_nothing_left(reports[1], reports[-1])


@pytest.mark.skipif(engine_shim.attach().name != "shared", reason="ENGINEs need the shared linkage")
def test_a_kernel_without_it_is_one_line() -> None:
    """Where it cannot work OpenSSL refuses it, and so do we; where it can, this has nothing to say."""
    try:
        socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()
    except OSError:
        with pytest.raises(engine_shim.EngineUnavailableError, match=r"^engine afalg cannot be loaded from [^\n]+$"):
            engine_shim.OpenSSLEngine("afalg", algorithms=None)
    else:
        pytest.skip("this kernel has AF_ALG")
