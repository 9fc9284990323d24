"""`choose_engine`: what pays for a key, by what its signatures cost here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import BatchCosts, batch_threads, choice, choose_engine

if TYPE_CHECKING:
    from support.certificates import Certificates

LANES = engine_shim.BatchEngine(0).lanes


def test_what_signs_quickly_is_left_to_openssl(certificates: Certificates) -> None:
    for kind in ("p256", "ed25519"):
        chosen = choose_engine(certificates[kind].key)
        assert (chosen.offload, chosen.threads) == ("off", None)
        assert " us, which is less than handing it over is worth" in chosen.reason


def test_slow_keys_go_to_threads_where_there_are_cpus(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_WORTH_A_THREAD", 1e-6)
    chosen = choose_engine(certificates["p384"].key, cpus=4)
    assert (chosen.offload, chosen.threads) == ("threads", None)
    assert chosen.reason.startswith("EC signs in ")
    assert chosen.reason.endswith(" us, and there are 4 CPUs")
    assert choose_engine(certificates["p384"].key, cpus=1).offload == "off"


@pytest.mark.skipif(not LANES, reason="this CPU or this build has no batches")
def test_rsa_goes_into_batches(certificates: Certificates) -> None:
    chosen = choose_engine(certificates["rsa2048"].key, cpus=1)
    assert (chosen.offload, chosen.threads) == ("batch", 0)
    assert "eight together in " in chosen.reason


@pytest.mark.skipif(bool(LANES), reason="this CPU has batches")
def test_rsa_without_lanes(certificates: Certificates) -> None:
    assert choose_engine(certificates["rsa4096"].key, cpus=2).offload == "threads"


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (BatchCosts(0.0002, 0.0006, 3), ("batch", 0)),
        (BatchCosts(0.0014, 0.006, 5), ("batch", 1)),
        (BatchCosts(0.0014, 0.02, None), ("threads", None)),
        (BatchCosts(0.0014, 0.0105, 8), ("threads", None)),
        (None, ("threads", None)),
    ],
)
def test_what_batches_cost_decides(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    costs: BatchCosts | None,
    expected: tuple[str, int | None],
) -> None:
    monkeypatch.setattr(engine_shim.Key, "batch_costs", property(lambda _: costs))
    monkeypatch.setattr(engine_shim.Key, "measure_signature", lambda _: 0.0014)
    chosen = choose_engine(certificates["rsa2048"].key, cpus=2)
    assert (chosen.offload, chosen.threads) == expected


@pytest.mark.parametrize(
    ("costs", "expected"), [(BatchCosts(0.0002, 0.0006, 3), 0), (BatchCosts(0.0014, 0.006, 5), 1), (None, 1)]
)
def test_threads_of_batches(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, costs: BatchCosts | None, expected: int
) -> None:
    """A batch that holds up the loop for longer than handshakes may is a thread's, and so is a key without batches."""
    monkeypatch.setattr(engine_shim.Key, "batch_costs", property(lambda _: costs))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert batch_threads(certificates["rsa2048"].key) == expected


def restricted(digest: str, salt_length: int) -> bytes:
    """Give a key that signs with this digest only (RFC 4055); cryptography makes none."""
    options = (
        *("rsa_keygen_bits:2048", f"rsa_pss_keygen_md:{digest}", f"rsa_pss_keygen_mgf1_md:{digest}"),
        f"rsa_pss_keygen_saltlen:{salt_length}",
    )
    arguments = [argument for option in options for argument in ("-pkeyopt", option)]
    command = ["openssl", "genpkey", "-algorithm", "RSA-PSS", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("digest", "salt_length"), [("sha384", 48), ("sha512", 64)])
def test_keys_for_one_digest_only(digest: str, salt_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_WORTH_A_THREAD", 1e-6)
    chosen = choose_engine(restricted(digest, salt_length), cpus=2)
    assert chosen.offload == "threads"
    assert " signs in 0 us" not in chosen.reason


def test_a_key_that_cannot_be_measured_does_not_stay_on_the_loop(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_shim.Key, "measure_signature", lambda _: 0)
    chosen = choose_engine(certificates["p384"].key, cpus=2)
    assert (chosen.offload, "cannot be measured" in chosen.reason) == ("threads", True)


def test_no_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("choice") / "key.pem"
    path.write_bytes(b"nothing")
    with pytest.raises(engine_shim.KeyLoadError):
        choose_engine(path)
