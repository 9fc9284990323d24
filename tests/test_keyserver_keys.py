"""Keys of the key server: where they are found, and which it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim import ThreadEngine
from support.keyserver_scene import ski
from tlsserver.errors import ConfigurationError
from tlsserver.signers.keyserver_keys import KeyRing, key_files

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates


def test_keys_of_a_folder(tmp_path: Path, certificates: Certificates) -> None:
    for kind in ("p256", "rsa2048"):
        (tmp_path / f"{kind}.key").write_bytes(certificates[kind].key.read_bytes())
    (tmp_path / "notes").write_text("nothing here")
    (tmp_path / "cert.pem").write_bytes(certificates["p256"].cert.read_bytes())
    (tmp_path / "folder.key").mkdir()
    with ThreadEngine(1) as engine:
        ring = KeyRing.load(key_files([tmp_path, certificates["p256"].key]), None, engine)
        assert {one.ski for one in ring} == {ski(certificates, kind) for kind in ("p256", "rsa2048")}
        assert len(ring) == 2


def test_keys_that_cannot_be_served(tmp_path: Path, certificates: Certificates) -> None:
    with ThreadEngine(1) as engine:
        with pytest.raises(ConfigurationError, match="no private key"):
            key_files([tmp_path])
        with pytest.raises(ConfigurationError, match="No such file"):
            KeyRing.load(key_files([tmp_path / "missing"]), None, engine)
        with pytest.raises(ConfigurationError, match="type ED448, for which the protocol has no signature"):
            KeyRing.load([certificates["ed448"].key], None, engine)
        with pytest.raises(engine_shim.KeyLoadError, match="no private key"):
            KeyRing.load([certificates["p256"].cert], None, engine)
        with pytest.raises(engine_shim.KeyPasswordError):
            KeyRing.load([certificates["p256"].encrypted_key(b"secret")], "wrong", engine)
        ring = KeyRing.load([certificates["p256"].encrypted_key(b"secret")], "secret", engine)
        assert [one.ski for one in ring] == [ski(certificates, "p256")]


def test_key_that_others_can_read_is_told(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(certificates["p256"].key.read_bytes())
    with ThreadEngine(1) as engine:
        file.chmod(0o600)
        KeyRing.load([file], None, engine)
        assert caplog.text == ""
        file.chmod(0o640)
        KeyRing.load([file], None, engine)
    assert f"{file} can be read or written by others than its owner" in caplog.text
