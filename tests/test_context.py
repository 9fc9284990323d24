"""A server's TLS context: what it takes, what it refuses, and that each refusal is one line."""

from __future__ import annotations

import dataclasses
import gc
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

import engine_shim
import tlsserver
from engine_shim import ManualEngine, Status
from engine_shim.server_context import set_session_context
from engine_shim.thirdparty import ThirdPartyEngine
from support.pair import Pair, client_context
from tlsserver import ConfigurationError, TLSContext
from tlsserver.policy.settings import ContextChanges, ContextOptions, ContextSettings

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates


def test_key_by_path_stays_on_the_loop(certificates: Certificates) -> None:
    identity = certificates["p256"]
    context = TLSContext(identity.cert, identity.key)
    assert (context.engine, context.offloaded, context.async_io) == (None, False, False)
    with Pair(context.pyopenssl, client_context(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE


def test_key_in_an_engine_is_offloaded(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with ManualEngine() as engine:
        context = TLSContext(str(identity.cert), engine.load_key(identity.key))
        assert context.engine is engine
        assert context.offloaded
        assert "manual" in repr(context)


def test_encrypted_key(certificates: Certificates) -> None:
    identity = certificates["p256"]
    path = identity.encrypted_key(b"secret")
    assert TLSContext(identity.cert, path, password="secret")  # noqa: S106 - made above
    with pytest.raises(engine_shim.KeyPasswordError):
        TLSContext(identity.cert, path)


def test_versions_and_ciphers(certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    context = TLSContext(identity.cert, identity.key, min_version="1.3").pyopenssl
    with Pair(context, client_context(identity, "1.2"), offloaded=False) as pair:
        assert pair.until_parked() is Status.ERROR
    context = TLSContext(
        identity.cert, identity.key, max_version="1.2", ciphers="ECDHE-RSA-AES256-GCM-SHA384"
    ).pyopenssl
    with Pair(context, client_context(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        assert pair.client.get_protocol_version_name() == "TLSv1.2"
        assert pair.client.get_cipher_name() == "ECDHE-RSA-AES256-GCM-SHA384"


def test_replace_changes_what_is_named_and_nothing_else(certificates: Certificates) -> None:
    old, new = certificates["p256"], certificates["rsa2048"]
    first = TLSContext(old.cert, old.key, alpn=("h2",), max_version="1.2")
    second = first.replace(certificate=new.cert, key=new.key, ciphers="ECDHE-RSA-AES256-GCM-SHA384")
    assert second.pyopenssl is not first.pyopenssl
    with Pair(second.pyopenssl, client_context(new), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        assert pair.client.get_protocol_version_name() == "TLSv1.2"
        assert pair.client.get_cipher_name() == "ECDHE-RSA-AES256-GCM-SHA384"
    with Pair(first.pyopenssl, client_context(old), offloaded=False) as pair:
        assert pair.finish() is Status.DONE


def test_what_cannot_be_replaced(certificates: Certificates) -> None:
    identity = certificates["p256"]
    context = TLSContext(identity.cert, identity.key)
    with pytest.raises(TypeError):
        context.replace(no_such_setting=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"TLS version '1\.1' is not known"):
        context.replace(min_version="1.1")
    taken_over = TLSContext.from_pyopenssl(context.pyopenssl)
    with pytest.raises(ConfigurationError, match="made by from_pyopenssl"):
        taken_over.replace(min_version="1.3")


def test_options_and_settings_are_the_same() -> None:
    settings = {field.name for field in dataclasses.fields(ContextSettings)}
    assert settings == set(ContextChanges.__annotations__) | set(ContextOptions.__annotations__)


def test_static_rsa_is_not_offered_by_default(certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    context = TLSContext(identity.cert, identity.key).pyopenssl
    with Pair(context, client_context(identity, "1.2", "AES128-GCM-SHA256"), offloaded=False) as pair:
        assert pair.until_parked() is Status.ERROR
        assert "no shared cipher" in pair.server.errors()[0].text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_version": "1.1"}, "TLS version '1.1' is not known: choose from 1.2, 1.3"),
        ({"max_version": "2"}, "TLS version '2' is not known"),
        ({"ciphers": "NO-SUCH-SUITE"}, "TLS 1.2 suites not known to this OpenSSL: NO-SUCH-SUITE"),
        ({"alpn": ["x" * 300]}, "ALPN"),
        ({"certificate": "/nowhere/cert.pem"}, "/nowhere/cert.pem: No such file or directory"),
        ({"certificate": "/"}, "/: Is a directory"),
        ({"key": "/nowhere/key.pem"}, "/nowhere/key.pem: No such file or directory"),
    ],
)
def test_bad_settings_are_one_line(certificates: Certificates, options: dict[str, Any], message: str) -> None:
    identity = certificates["p256"]
    settings = {"certificate": identity.cert, "key": identity.key} | options
    with pytest.raises(ConfigurationError) as caught:
        TLSContext(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_certificate_that_is_none(certificates: Certificates, tmp_path: Path) -> None:
    der = tmp_path / "cert.der"
    der.write_bytes(b"\x30\x82\x01\x00")
    with pytest.raises(ConfigurationError, match="is not a PEM file: convert it"):
        TLSContext(der, certificates["p256"].key)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        TLSContext(certificates["p256"].key, certificates["p256"].key)


def test_mismatch_has_the_same_words_with_and_without_an_engine(certificates: Certificates) -> None:
    said = set()
    with ManualEngine() as engine:
        for key in (certificates["rsa2048"].key, engine.load_key(certificates["rsa2048"].key)):
            with pytest.raises(engine_shim.KeyMismatchError) as caught:
                TLSContext(certificates["p256"].cert, key)
            said.add(str(caught.value))
    assert len(said) == 1


# --- A pyOpenSSL Context handed over ---


def ready_context(certificates: Certificates) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(certificates["p256"].cert))
    context.use_privatekey_file(str(certificates["p256"].key))
    return context


def test_from_pyopenssl(certificates: Certificates) -> None:
    with ManualEngine() as engine:
        context = TLSContext.from_pyopenssl(ready_context(certificates), engine=engine)
        with Pair(context.pyopenssl, client_context(certificates["p256"])) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.perform()
            assert pair.finish() is Status.DONE


def test_from_pyopenssl_without_an_engine(certificates: Certificates) -> None:
    assert not TLSContext.from_pyopenssl(ready_context(certificates)).offloaded


def test_from_pyopenssl_without_a_key() -> None:
    with ManualEngine() as engine, pytest.raises(ConfigurationError, match="no private key to wrap"):
        TLSContext.from_pyopenssl(SSL.Context(SSL.TLS_SERVER_METHOD), engine=engine)


class Theirs(ThirdPartyEngine):
    """An engine of others: it has put its key into the Context already."""

    name = "theirs"

    def load_key(self, *_: object) -> engine_shim.Key:
        raise NotImplementedError

    def close(self, timeout: float = 5.0) -> bool:
        return timeout > 0


def test_from_pyopenssl_leaves_the_keys_of_a_third_party_alone(certificates: Certificates) -> None:
    gc.collect()  # keys of the tests before
    before = engine_shim.counters().keys_alive
    ready, engine = ready_context(certificates), Theirs()
    context = TLSContext.from_pyopenssl(ready, engine=engine, async_io=True)
    assert (context.engine, context.offloaded, context.async_io) == (engine, True, True)
    assert engine_shim.counters().keys_alive == before
    with Pair(context.pyopenssl, client_context(certificates["p256"])) as pair:
        assert pair.finish() is Status.DONE


def test_from_pyopenssl_misses_a_third_partys_key(certificates: Certificates) -> None:
    bare = SSL.Context(SSL.TLS_SERVER_METHOD)
    bare.use_certificate_chain_file(str(certificates["p256"].cert))
    with pytest.raises(ConfigurationError, match=r"no private key for its certificate \(.+\)"):
        TLSContext.from_pyopenssl(bare, engine=Theirs())


def test_from_pyopenssl_with_asynchronous_io(certificates: Certificates) -> None:
    context = TLSContext.from_pyopenssl(ready_context(certificates), async_io=True)
    assert (context.engine, context.offloaded, context.async_io) == (None, True, True)


CALLBACKS = {
    "SNI": lambda c: c.set_tlsext_servername_callback(lambda *_: None),
    "ALPN": lambda c: c.set_alpn_select_callback(lambda *_: b""),
    "verification": lambda c: c.set_verify(SSL.VERIFY_PEER, lambda *_: True),
    "info": lambda c: c.set_info_callback(lambda *_: None),
    "key log": lambda c: c.set_keylog_callback(lambda *_: None),
    "OCSP": lambda c: c.set_ocsp_server_callback(lambda *_: b""),
    "cookie generation": lambda c: c.set_cookie_generate_callback(lambda *_: b""),
    "cookie verification": lambda c: c.set_cookie_verify_callback(lambda *_: True),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_python_callbacks_are_refused_by_name(certificates: Certificates, name: str) -> None:
    context = ready_context(certificates)
    CALLBACKS[name](context)
    with ManualEngine() as engine, pytest.raises(ConfigurationError, match=f"remove {name} "):
        TLSContext.from_pyopenssl(context, engine=engine)


def test_context_cannot_be_changed(certificates: Certificates) -> None:
    context = TLSContext(certificates["p256"].cert, certificates["p256"].key)
    with pytest.raises(AttributeError):
        context.engine = None  # type: ignore[misc]
    assert tlsserver.TLSContext is TLSContext


def test_a_session_context_has_its_length(certificates: Certificates) -> None:
    context = TLSContext(certificates["p256"].cert, certificates["p256"].key).pyopenssl
    with pytest.raises(ValueError, match="has 31 bytes, it must have 32"):
        set_session_context(context, bytes(31))


def test_settings_show_no_secret() -> None:
    """A debugger or a log may show them with a traceback."""
    url = "rediss://user:sesame@localhost/0"
    shown = repr(ContextSettings("cert.pem", "key.pem", password="sesame", ticket_keys=url))  # noqa: S106 - as if
    assert "cert.pem" in shown
    assert "sesame" not in shown
