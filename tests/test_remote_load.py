"""Many handshakes at once against key servers that take their time, and key servers that are killed under load.

The key servers, the server that asks them and its clients each have a process of their own. The full forms, with the
figures of docs/remote-signers.md, want a machine of their own: ``pytest -m stress -s tests/test_remote_load.py``. The
others have fewer handshakes and more patience.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.child_server import allow_many_files
from support.remote_site import Crowd, KeyProcess, Pinger, RemoteSite, keep_coming, storm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity
    from support.client_scene import House

pytestmark = pytest.mark.serial

STRESS = (pytest.mark.stress, pytest.mark.timeout(120))
LATENCY = 0.1
# Seconds that the handshakes may take beyond the ideal: each costs both ends a millisecond or so of a core, whatever
# the signer does.
SLACK = 1.0
# What the issue asks for, and what is asked of a machine that others use too.
PING, BUSY_PING = 0.02, 0.2
STALL, BUSY_STALL = 0.05, 0.25
RETURN = 2.0
RATE = 200
# CPUs that other processes may have used, if a time is to mean something.
OTHERS = 0.2


def others_seconds() -> float:
    """Tell how much time of CPUs was used but by this process and the children that have ended (proc(5), stat)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


@dataclass(frozen=True)
class Load:
    """How many handshakes begin at once, and what the signer may have under way."""

    clients: int
    servers: int = 1
    connections: int = 1
    most_in_flight: int = 256

    @property
    def depth(self) -> int:
        """Requests that the signer has under way at most."""
        return self.servers * self.connections * self.most_in_flight

    @property
    def ideal(self) -> float:
        """Seconds, if nothing but the key servers took any time: they answer a whole depth in each latency."""
        return LATENCY * -(-self.clients // self.depth)


@contextlib.contextmanager
def signed_by(
    identity: Identity, places: list[Path], latency: float, **options: Any
) -> Iterator[tuple[RemoteSite, list[KeyProcess]]]:
    with contextlib.ExitStack() as stack:
        keys = [stack.enter_context(KeyProcess(identity, place, 1000 * latency)) for place in places]
        site = stack.enter_context(RemoteSite(identity, [one.address for one in keys], **options))
        site.until_up()
        yield site, keys


def run_storm(identity: Identity, folder: Path, version: str, load: Load) -> tuple[list[float], list[float], int]:
    """Return when each handshake was done, how long each ping took meanwhile, both in order, and failed attempts."""
    allow_many_files()
    places = [folder / str(index) for index in range(load.servers)]
    options = {"most_in_flight": load.most_in_flight, "connections": load.connections}
    with signed_by(identity, places, LATENCY, **options) as (site, _):
        with Crowd(storm, site.address[1], load.clients, version) as crowd:
            pinger = Pinger(site.address)
            crowd.begin()
            pinger.run(crowd.output)
            times: list[float] = crowd.answer()
            pinger.close()
        numbers = site.report()["signers"]
    assert sum(one["performed"] for one in numbers) == load.clients + 1
    return times, sorted(pinger.times), sum(one["failed"] for one in numbers)


def storm_is_good(identity: Identity, folder: Path, version: str, load: Load, longest_ping: float) -> bool:
    """Run one; tell whether it was in time, and the 99th percentile of the pings meanwhile as well."""
    times, pings, failed = run_storm(identity, folder, version, load)
    p99 = pings[len(pings) * 99 // 100]
    print(  # noqa: T201 - the figure
        f"\n{identity.kind}, TLS {version}: {load.clients} handshakes in {times[-1]:.2f} s, ideal {load.ideal:.2f} s; "
        f"{len(pings)} pings, p99 {1000 * p99:.1f} ms, longest {1000 * pings[-1]:.1f} ms"
    )
    assert times[-1] >= load.ideal
    return times[-1] < load.ideal + SLACK and p99 < longest_ping and not failed


@pytest.mark.parametrize(("kind", "version"), [("p256", "1.3"), ("rsa2048", "1.2")])
def test_a_signers_latency_is_not_the_loops(
    certificates: Certificates, tmp_path: Path, kind: str, version: str
) -> None:
    assert storm_is_good(certificates[kind], tmp_path, version, Load(200, most_in_flight=100), BUSY_PING)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(1000), id="one server", marks=STRESS),
        pytest.param(Load(1000, servers=2, connections=2, most_in_flight=50), id="two servers", marks=STRESS),
    ],
)
def test_thousand_handshakes(certificates: Certificates, tmp_path: Path, kind: str, version: str, load: Load) -> None:
    """One of three has to do. Where others have the CPUs, nothing can be said."""
    taken = []
    for _ in range(3):
        begun, others = time.monotonic(), others_seconds()
        if storm_is_good(certificates[kind], tmp_path, version, load, PING):
            return
        taken.append((others_seconds() - others) / (time.monotonic() - begun))
    if min(taken) > OTHERS:
        pytest.skip(f"other processes took {min(taken):.1f} CPUs or more meanwhile: wants a machine of its own")
    pytest.fail(f"not in three attempts, with {min(taken):.1f} CPUs taken by others")


def run_kills(site: RemoteSite, keys: list[KeyProcess], *, alone: int, times: int) -> list[float]:
    """Kill the first key server, and start it again after so many handshakes without it; so many times.

    Returns:
        How long it took each time until it was used again, in seconds.
    """
    returns = []
    for _ in range(times):
        before = site.report()["signers"]
        site.until(lambda now: now[0]["performed"] > before[0]["performed"] and now[0]["in_flight"])  # noqa: B023
        keys[0].kill()
        before = site.until(lambda now: now[0]["state"] == "down")
        site.until(lambda now: now[1]["performed"] > before[1]["performed"] + alone)  # noqa: B023
        keys[0].start()
        back = time.monotonic()
        site.until(lambda now: now[0]["performed"] > before[0]["performed"])  # noqa: B023
        returns.append(time.monotonic() - back)
    return returns


def check_kills(site: RemoteSite, keys: list[KeyProcess], seconds: float, **how: int) -> tuple[float, float]:
    """Return the longest stall of the loop and the longest return, in seconds."""
    with Crowd(keep_coming, site.address[1], RATE, seconds, "1.3") as crowd:
        crowd.begin()
        returns = run_kills(site, keys, **how)
        said = crowd.answer()
    retries = sum(one["retries"] for one in site.report()["signers"])
    stall = site.stall()
    print(  # noqa: T201 - the figure
        f"\n{said['count']} handshakes in {said['seconds']:.2f} s, {len(said['failures'])} failed, the slowest took "
        f"{1000 * said['slowest']:.0f} ms; {len(returns)} kills, {retries} retries, the longest stall "
        f"{1000 * stall:.1f} ms, used again after at most {1000 * max(returns):.0f} ms"
    )
    assert said["failures"] == []
    assert retries > 0
    return stall, max(returns)


def test_one_of_two_is_killed(certificates: Certificates, tmp_path: Path) -> None:
    with signed_by(certificates["p256"], [tmp_path / "1", tmp_path / "2"], LATENCY) as (site, keys):
        stall, back = check_kills(site, keys, 2, alone=40, times=1)
        assert stall < BUSY_STALL
        assert back < RETURN


@pytest.mark.stress
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
@pytest.mark.parametrize("transport", ["unix", "tls"])
def test_one_of_two_is_killed_again_and_again(
    certificates: Certificates, house: House, tmp_path: Path, kind: str, transport: str
) -> None:
    """Long enough for the longest pause between two attempts to connect."""
    tls = None
    places = [tmp_path / "1", tmp_path / "2"]
    if transport == "tls":
        tls = {"certificate": str(house.good.cert), "key": str(house.good.key), "ca": str(certificates.ca.ca)}
        places = [house.root.cert] * 2
    with signed_by(certificates[kind], places, LATENCY, tls=tls) as (site, keys):
        stall, back = check_kills(site, keys, 25, alone=3 * RATE, times=4)
        assert stall < STALL
        assert back < RETURN
