"""Keys in a process of their own, under real servers."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import KeyLoadError, KeyMismatchError
from support import leaks
from support.clients import Target, python_ssl
from support.running import Running
from tlsserver import TLSContext
from tlsserver.errors import ConfigurationError
from tlsserver.protocols.http1 import Request, Response, protocol_factory
from tlsserver.signers import child
from tlsserver.signers.isolated import IsolatedSigner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity

KINDS = ("rsa2048", "p256", "p384", "ed25519")


@pytest.fixture
def signer(certificates: Certificates) -> Iterator[IsolatedSigner]:
    with IsolatedSigner([certificates[kind].key for kind in KINDS], offload="off") as made:
        yield made


def web(request: Request) -> Response:
    return Response(body=request.body)


def site_of(context: TLSContext) -> Running:
    return Running(context, protocol_factory(web))


def visit(site: Running, identity: Identity, version: str, **options: Any) -> None:
    target = Target(site.port, identity, version, **options)
    (answer,) = python_ssl(target, [b"hello"])
    assert answer.version == f"TLSv{version}"
    assert b"hello" in answer.reply.body


def test_handshakes(signer: IsolatedSigner, certificates: Certificates) -> None:
    for kind in KINDS:
        identity = certificates[kind]
        with site_of(TLSContext(identity.cert, signer.load_key(identity.cert))) as site:
            for version in ("1.2", "1.3"):
                visit(site, identity, version)
    (numbers,) = signer.signers()
    assert (numbers.performed, numbers.failed) == (2 * len(KINDS), 0)


def test_rsa_key_exchange(signer: IsolatedSigner, certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    context = TLSContext(identity.cert, signer.load_key(identity.cert), ciphers="AES128-GCM-SHA256:@SECLEVEL=0")
    with site_of(context) as site:
        visit(site, identity, "1.2", ciphers="AES128-GCM-SHA256:@SECLEVEL=0")


def test_server_lives_when_its_signer_dies(signer: IsolatedSigner, certificates: Certificates) -> None:
    identity = certificates["p256"]
    with site_of(TLSContext(identity.cert, signer.load_key(identity.cert))) as site:
        visit(site, identity, "1.3")
        first = signer.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        visit(site, identity, "1.3")  # it waits for the next one, within the deadline
        assert signer.child.pid not in (None, first)


def test_key_that_is_changed(certificates: Certificates, tmp_path: Path) -> None:
    old, new = certificates["p256"], certificates["rsa2048"]
    key = tmp_path / "key.pem"
    shutil.copy(old.key, key)
    with IsolatedSigner([key], offload="off") as signer:
        handle = signer.load_key(old.cert)
        with site_of(TLSContext(old.cert, handle)) as site:
            visit(site, old, "1.3")
            shutil.copy(new.key, key)
            site.server.reload(lambda: TLSContext(new.cert, signer.load_key(new.cert)))
            visit(site, new, "1.3")
        with site_of(TLSContext(old.cert, handle)) as site:
            visit(site, old, "1.3")  # handshakes may have begun with it


def test_keys_before_stay_while_new_ones_are_refused(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signer reads a new key, and its server finds that its certificate is another's: it goes on as it was."""
    monkeypatch.setattr(child, "_KEY_GRACE", 0.001)
    old, new = certificates["p256"], certificates["rsa2048"]
    key = tmp_path / "key.pem"
    shutil.copy(old.key, key)
    with (
        IsolatedSigner([key], offload="off") as signer,
        site_of(TLSContext(old.cert, signer.load_key(old.cert))) as site,
    ):
        shutil.copy(new.key, key)
        with pytest.raises(KeyMismatchError):
            site.server.reload(lambda: TLSContext(old.cert, signer.load_key(certificates["p521"].cert)))
        assert signer.child.key_ids() == {signer.load_key(new.cert).key_id}
        for _ in range(3):
            signer.child.reload()  # longer than the grace
            visit(site, old, "1.3")


def test_certificate_of_another_key(signer: IsolatedSigner, certificates: Certificates) -> None:
    with pytest.raises(KeyMismatchError, match="the private key does not belong to the certificate"):
        signer.load_key(certificates["p521"].cert)


def test_certificate_with_its_key_in_one_file(
    signer: IsolatedSigner, certificates: Certificates, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificates["p256"].key.read_bytes() + certificates["p256"].cert.read_bytes())
    with pytest.raises(KeyLoadError, match="is private"):
        signer.load_key(both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": []}, "an isolated signer needs a key: give the path of one"),
        ({"offload": "warp"}, "Invalid value for '--offload'"),
        ({"connections": 0}, "connections is 0: give 1 to 64"),
    ],
)
def test_settings_that_cannot_work(certificates: Certificates, options: dict[str, Any], message: str) -> None:
    before = leaks.holdings()
    with pytest.raises(ConfigurationError, match=message):
        IsolatedSigner(**{"keys": [certificates["p256"].key], **options})
    after = leaks.settled(before)
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
