"""Tokens and keys: which one is meant, who is let in, and what is said where something is missing."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from engine_shim import OperationFailedError
from support.softhsm import MODULE, PIN
from tlsserver.errors import ConfigurationError
from tlsserver.signers import pkcs11_mechanism, pkcs11_token
from tlsserver.signers.pkcs11 import Pkcs11Signer
from tlsserver.signers.pkcs11_key import _is_same, needs_pin
from tlsserver.signers.pkcs11_module import Module, load_module, pkcs11
from tlsserver.signers.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from support.certificates import Certificates, Identity
    from support.softhsm import SoftHsm

Attribute = pkcs11.Attribute


def sign(uri: str | Pkcs11Uri, identity: Identity, pin: bytes | None = PIN) -> bytes:
    with Pkcs11Signer(uri, pin=pin) as signer:
        return signer.load_key(identity.cert).sign(b"text")


def said(uri: str | Pkcs11Uri, identity: Identity, pin: bytes | None = PIN) -> str:
    with Pkcs11Signer(uri, pin=pin) as signer, pytest.raises(ConfigurationError) as caught:
        signer.load_key(identity.cert)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def there(uri: str) -> pkcs11.Token:
    """Find the token with the library alone."""
    module = load_module(MODULE)
    module.restart(module.generation)  # one that is newer than its list
    with module.call() as library:
        token: pkcs11.Token
        (token,) = (slot.get_token() for slot in library.get_slots() if slot.get_token().label == token_of(uri))
    return token


def token_of(uri: str) -> str | None:
    return Pkcs11Uri.parse(uri).token


def test_token_by_each_attribute(web: str, certificates: Certificates) -> None:
    token, meant, identity = there(web), Pkcs11Uri.parse(web), certificates["p256"]
    right: dict[str, Any] = {
        "serial": token.serial.decode(),
        "manufacturer": "SoftHSM project",
        "model": "SoftHSM v2",
        "slot_id": token.slot.slot_id,
        "slot_manufacturer": "SoftHSM project",
        "slot_description": token.slot.slot_description,
        "library_manufacturer": "SoftHSM",
        "library_version": "2.6",
        "library_description": "Implementation of PKCS11",
    }
    assert sign(replace(meant, **right), identity)
    assert sign(replace(meant, library_version="2"), identity)
    assert sign(replace(meant, token=None, serial=right["serial"]), identity)
    for name in right:
        other: dict[str, Any] = {name: 77 if name == "slot_id" else "wrong"}
        wrong = replace(meant, **other)
        expected = (
            "is not the one that the URI describes" if name.startswith("library") else "no token with token 'web'"
        )
        assert expected in said(wrong, identity)


def test_keyword_for_the_label(web: str, certificates: Certificates) -> None:
    with Pkcs11Signer(module=MODULE, token=token_of(web), pin=PIN) as signer:
        assert signer.load_key(certificates["p256"].cert).sign(b"text")


def test_token_that_is_not_there(web: str, certificates: Certificates) -> None:
    message = said(web.replace("=web", "=nobody"), certificates["p256"])
    assert message.startswith("no token with token 'nobody' in /usr/lib/")
    assert "there is 'web' (serial " in message


def test_several_tokens(softhsm: SoftHsm, certificates: Certificates) -> None:
    softhsm.token("double")
    uri = softhsm.token("double")
    message = said(uri, certificates["p256"])
    assert message.startswith("token 'double' means several tokens: 'double' (serial ")
    assert message.endswith("add serial=... to the URI")


def test_key_by_label_and_id(web: str, certificates: Certificates) -> None:
    identity, meant = certificates["p256"], Pkcs11Uri.parse(web)
    assert sign(replace(meant, object="p256", id=b"\3"), identity)
    assert "no private EC key with label 'other', see pkcs11-tool" in said(replace(meant, object="other"), identity)
    assert "no private EC key with id 04ff," in said(replace(meant, id=b"\4\xff"), identity)
    assert "with label 'p384' is another key than the certificate's" in said(replace(meant, object="p384"), identity)
    stranger = certificates.issue("stranger", "p256")
    assert "what token 'web' has are other keys than the certificate's" in said(web, stranger)


def test_without_a_pin(softhsm: SoftHsm, certificates: Certificates) -> None:
    uri = softhsm.token("pinless", certificates["p256"])
    assert "or shows none without a PIN: give one" in said(uri, certificates["p256"], None)


def test_wrong_pin_is_tried_once(
    softhsm: SoftHsm, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = softhsm.token("guarded", certificates["p256"])
    tried, login = [], Module.login

    def count(self: Module, *arguments: Any) -> None:
        tried.append(arguments)
        login(self, *arguments)

    monkeypatch.setattr(Module, "login", count)
    with caplog.at_level(logging.DEBUG), Pkcs11Signer(uri, pin=b"75319") as signer:
        for _ in range(3):
            with pytest.raises(
                ConfigurationError, match="'guarded' does not let us in: the PIN is wrong; not tried"
            ) as e:
                signer.load_key(certificates["p256"].cert)
            assert "75319" not in f"{e.value!r} {e.value.__cause__!r}"
        assert signer.signers()[0].state == "down"
        assert "75319" not in repr(signer._token.pin)
    assert len(tried) == 1
    assert "75319" not in caplog.text
    assert sign(uri, certificates["p256"])


def test_pin_that_is_refused_later(softhsm: SoftHsm, certificates: Certificates) -> None:
    """It was changed meanwhile: ops fail with the reason, and it is not tried again."""
    uri = softhsm.token("changed", certificates["p256"])
    with Pkcs11Signer(uri, pin=PIN) as signer:
        key = signer.load_key(certificates["p256"].cert)
        assert key.sign(b"text")
        pin, module = signer._token.pin, signer._token.module
        assert pin is not None
        pin.read()[:] = b"0000"
        module.restart(module.generation)  # all sessions are gone
        for _ in range(2):
            with pytest.raises(OperationFailedError, match="'changed' does not let us in: the PIN is wrong"):
                key.sign(b"text")
        assert signer.signers()[0].state == "down"


def test_last_try_is_left_to_people(
    softhsm: SoftHsm, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = softhsm.token("last", certificates["p256"])

    class Flags:
        USER_PIN_FINAL_TRY = pkcs11.TokenFlag.LOGIN_REQUIRED  # which every token has here
        LOGIN_REQUIRED = pkcs11.TokenFlag.LOGIN_REQUIRED
        TOKEN_INITIALIZED = pkcs11.TokenFlag.TOKEN_INITIALIZED
        PROTECTED_AUTHENTICATION_PATH = pkcs11.TokenFlag.PROTECTED_AUTHENTICATION_PATH

    monkeypatch.setattr(pkcs11_token, "_Flag", Flags)
    assert "one more wrong PIN locks it, so none is tried" in said(uri, certificates["p256"])


def change(uri: str, template: dict[Any, Any], action: Any) -> None:
    """Do something to objects of a token in a session that may."""
    with there(uri).open(rw=True, user_pin=PIN.decode()) as session:
        for one in list(session.get_objects(template)):
            action(one)


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_token_that_shows_no_public_half(softhsm: SoftHsm, certificates: Certificates, kind: str) -> None:
    """Then the key signs, and the signature tells."""
    label = f"private-{kind}"
    uri = softhsm.token(label, certificates[kind])
    change(uri, {Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY}, lambda one: one.destroy())
    with Pkcs11Signer(uri, pin=PIN) as signer:
        assert signer.load_key(certificates[kind].cert).sign(b"text", digest=None if kind == "ed25519" else "SHA256")
    assert "is another key than the certificate's" in said(uri, certificates.issue(label, kind))


def test_key_that_must_not_sign(softhsm: SoftHsm, certificates: Certificates) -> None:
    uri = softhsm.token("decrypting", certificates["rsa2048"])

    def forbid(one: Any) -> None:
        one[Attribute.SIGN] = False

    change(uri, {Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}, forbid)
    assert "must not sign (CKA_SIGN is false)" in said(uri, certificates["rsa2048"])


def test_token_without_the_mechanism(web: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = pkcs11.Mechanism.AES_GMAC  # one that SoftHSM2 has not
    monkeypatch.setitem(pkcs11_mechanism._NEEDED, "RSA", (pkcs11.Mechanism.RSA_PKCS, missing))
    message = said(web, certificates["rsa2048"])
    assert message.startswith(
        "token 'web' cannot sign as TLS needs it with RSA keys: it has no CKM_AES_GMAC; use a key"
    )
    monkeypatch.delitem(pkcs11_mechanism._NEEDED, "EC")
    assert "no PKCS #11 mechanism is known for EC keys" in said(web, certificates["p256"])


def test_token_that_fails_while_a_key_is_loaded(
    web: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise pkcs11.DeviceError

    monkeypatch.setattr("tlsserver.signers.pkcs11.find_private_key", fail)
    assert said(web, certificates["p256"]) == "token 'web' fails: DeviceError"


def test_public_halves_are_compared(certificates: Certificates) -> None:
    for kind, header in (("p256", b"\4\x41"), ("p521", b"\4\x81\x85"), ("ed25519", b"\4\x20")):
        public: Any = x509.load_pem_x509_certificate(certificates[kind].cert.read_bytes()).public_key()
        with Pkcs11Signer(f"pkcs11:?module-path={MODULE}") as signer:
            point = super(Pkcs11Signer, signer).load_key(certificates[kind].cert).public_der()
        raw = point[-int.from_bytes(header[-1:], "big") :]
        assert _is_same(public, raw)
        assert _is_same(public, header + raw)
        assert not _is_same(public, raw[:-1] + bytes([raw[-1] ^ 1]))


def test_key_that_wants_the_pin_each_time() -> None:
    assert needs_pin({Attribute.ALWAYS_AUTHENTICATE: True})
    assert not needs_pin({Attribute.ALWAYS_AUTHENTICATE: False})
