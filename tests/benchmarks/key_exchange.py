"""What key pairs made ahead are worth: a server's CPU per full handshake, in memory, with and without them.

Both ends are in this thread, over memory buffers; the time is the server's own (CPU of this thread, around its steps).
The two Contexts take turns, block by block; a block's ratio is one sample, and the interval is that of their mean.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from OpenSSL import SSL

import engine_shim
from engine_shim import key_exchange
from support.certificates import Certificates, Identity
from support.groups import set_groups
from support.pair import client_context

HYBRID = "X25519MLKEM768"


def server(identity: Identity, *, ahead: bool) -> SSL.Context:
    """Make a server's Context; without tickets, which would hide what is measured."""
    context = key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) if ahead else SSL.Context(SSL.TLS_SERVER_METHOD)
    if context is None:
        sys.exit(f"no key pairs are made ahead here: {key_exchange.why_unavailable()}")
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate_chain_file(str(identity.cert))
    context.use_privatekey_file(str(identity.key))
    return context


def handshake(near: SSL.Context, far: SSL.Context) -> int:
    """Do one full handshake; nanoseconds of CPU that the server's steps took."""
    spent = 0
    ends = SSL.Connection(near, None), SSL.Connection(far, None)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    done = [False, False]
    while not all(done):
        for me in (1, 0):
            began = time.thread_time_ns()
            with suppress(SSL.WantReadError):
                ends[me].do_handshake()
                done[me] = True
            spent += (time.thread_time_ns() - began) * (me == 0)
            with suppress(SSL.WantReadError):
                ends[1 - me].bio_write(ends[me].bio_read(1 << 16))
    return spent


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Give the median and its 95 % interval, by order, which outliers do not move."""
    ordered, half = sorted(ratios), 0.98 * len(ratios) ** 0.5
    middle = len(ratios) / 2
    return (
        statistics.median(ratios),
        ordered[max(int(middle - half), 0)],
        ordered[min(int(middle + half), len(ratios) - 1)],
    )


def compare(identity: Identity, version: str, groups: str, blocks: int, size: int) -> None:
    """Measure one kind of handshake and print a line."""
    contexts = [server(identity, ahead=ahead) for ahead in (False, True)]
    client = client_context(identity, version)
    if not set_groups(client, groups):
        return
    samples = []
    for block in range(-1, blocks):  # the first one warms up
        order = (0, 1) if block % 2 else (1, 0)
        spent = {which: sum(handshake(contexts[which], client) for _ in range(size)) / size / 1000 for which in order}
        if block >= 0:
            samples.append((spent[0], spent[1]))
    plain, ahead = (statistics.median(column) for column in zip(*samples, strict=True))
    ratio, least, most = interval([ahead / plain for plain, ahead in samples])
    click.echo(
        f"{identity.kind:8} TLS {version} {groups:16} {plain:6.1f} us, ahead {ahead:6.1f} us: "
        f"{ratio:.3f} [{least:.3f}, {most:.3f}]"
    )


def main() -> None:
    """Run the comparison for two kinds of key and two groups."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=150)
    parser.add_argument("--size", type=int, default=16, help="handshakes in a block")
    arguments = parser.parse_args()
    click.echo(engine_shim.attach().openssl_version)
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        for kind, version, group in [
            ("p256", "1.3", "X25519"),
            ("rsa2048", "1.3", "X25519"),
            ("rsa2048", "1.2", "X25519"),
            ("p256", "1.3", HYBRID),
            ("p256", "1.2", "X25519:P-256"),
            ("p256", "1.3", "P-256"),
        ]:
            compare(certificates[kind], version, group, arguments.blocks, arguments.size)


if __name__ == "__main__":
    main()
