"""Handshakes over many names while their certificates change and the context is made anew again and again.

Invariant: none fails; each gets its own name's certificate, of a generation that was there when it began or later; and
a context that nobody uses is freed.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from helpers_server import Echo

from engine_shim import ThreadEngine
from support.naming import client, connect
from support.running import Running
from tlsserver import Certificate, TLSContext

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

CLIENTS = 8


class Town:
    """Names, whose certificates are renewed all the time, and those who ask for them."""

    def __init__(self, certificates: Certificates, folder: Path, names: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.main = certificates.for_names("town", "p256", "town.test")
        self.names = [f"h{number}.town.test" for number in range(names)]
        # Two generations are made, and take turns: the serial number tells them apart.
        self._made = [
            [certificates.for_names(f"town-{age}-{name}", "p256", name, key=key) for name in self.names]
            for age in (0, 1)
        ]
        self._serials = [[_serial(files) for files in generation] for generation in self._made]
        self._live = [folder / name for name in self.names]
        self.age = 0
        self.renew(0)

    def renew(self, age: int) -> None:
        """Put a generation in place, file by file."""
        for made, live in zip(self._made[age], self._live, strict=True):
            new = live.with_suffix(".new")
            os.link(made.cert, new)
            new.rename(live)
        self.age = age

    def certificates(self) -> list[Certificate]:
        key = self._made[0][0].key
        return [Certificate(live, key, names=[name]) for name, live in zip(self.names, self._live, strict=True)]

    def visit(self, address: tuple[str, int], ours: ssl.SSLContext, number: int) -> None:
        """Shake hands, and look whose certificate it is."""
        which = number % len(self.names)
        with connect(address, ours, self.names[which]) as tls:
            served = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
        assert served.serial_number in {serials[which] for serials in self._serials}, self.names[which]


def _serial(files: Identity) -> int:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def run(town: Town, context: TLSContext, handshakes: int, pause: float) -> tuple[int, float]:
    """Serve them, and return how often the context was made anew, and how long all took."""
    dead: list[weakref.ref[TLSContext]] = []
    done = threading.Event()
    with Running(context, Echo, backlog=1024) as site:

        def reload() -> None:
            while not done.wait(pause):
                town.renew(1 - town.age)
                dead.append(weakref.ref(site.server._context))  # type: ignore[arg-type]
                site.server.reload()

        reloading = threading.Thread(target=reload)
        reloading.start()
        begun = time.monotonic()
        try:
            with ThreadPoolExecutor(CLIENTS) as pool:
                ours = client(town.main)
                for visited in [
                    pool.submit(town.visit, site.address, ours, number * 7919) for number in range(handshakes)
                ]:
                    visited.result()
        finally:
            done.set()
            reloading.join()
        seconds = time.monotonic() - begun
        numbers = site.until(lambda numbers: not numbers.connections_open)
        assert (numbers.handshakes_completed, numbers.handshakes_failed) == (handshakes, 0)
        site.settle()
        gc.collect()
        # The one that serves now is not among them; the one before may be the loop's until the next client comes.
        assert sum(one() is not None for one in dead[1:]) <= 1  # the first is the caller's as well
    return len(dead), seconds


def test_some(certificates: Certificates, tmp_path: Path) -> None:
    town = Town(certificates, tmp_path, 80)
    with ThreadEngine(1) as engine:
        context = TLSContext(town.main.cert, engine.load_key(town.main.key), certificates=town.certificates())
        reloads, _ = run(town, context, 240, 0.02)
    assert reloads > 1


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("offload", [True, False])
def test_ten_thousand(certificates: Certificates, tmp_path: Path, offload: bool) -> None:
    town = Town(certificates, tmp_path, 1000)
    with ThreadEngine(1) as engine:
        key = engine.load_key(town.main.key) if offload else town.main.key
        reloads, seconds = run(town, TLSContext(town.main.cert, key, certificates=town.certificates()), 10_000, 0.1)
    # For whoever reads along (-s): the test has no bound for the time.
    print(f"\n10,000 handshakes over 1,000 names in {seconds:.1f} s, {reloads} reloads")  # noqa: T201
