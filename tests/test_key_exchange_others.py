"""Key pairs made ahead are for the Contexts that were made for them: nobody else in the process has heard of it.

Each order of use runs in a process of its own, because what OpenSSL has fetched once it keeps.
"""

from __future__ import annotations

import ctypes
import ssl
from typing import TYPE_CHECKING

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from OpenSSL import SSL

import engine_shim
from engine_shim import Status, key_exchange
from engine_shim.native import ffi, lib
from support import apart
from support.ahead import ahead_context, used
from support.groups import openssl_function
from support.pair import VERSIONS, Pair

if TYPE_CHECKING:
    from support.certificates import Identity

pytestmark = pytest.mark.skipif(
    key_exchange.why_unavailable() is not None, reason=f"no key pairs made ahead: {key_exchange.why_unavailable()}"
)


def providers() -> list[str]:
    """Name the providers of the default library context."""
    names: list[str] = []
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    name_of = openssl_function("OSSL_PROVIDER_get0_name", ctypes.c_char_p, ctypes.c_void_p)

    def note(provider: int, _: int | None) -> int:
        names.append(name_of(provider).decode())
        return 1

    openssl_function("OSSL_PROVIDER_do_all", ctypes.c_int, ctypes.c_void_p, callback, ctypes.c_void_p)(
        None, callback(note), None
    )
    return sorted(names)


def provider_of_plain_keys() -> str:
    """Name the provider that has a new X25519 key of the default library context."""
    pointer = ctypes.c_void_p
    maker = openssl_function("EVP_PKEY_CTX_new_from_name", pointer, pointer, ctypes.c_char_p, ctypes.c_char_p)(
        None, b"X25519", None
    )
    public = ctypes.create_string_buffer(b"\x09".ljust(32, b"\0"), 32)
    parameters = ffi.new("uintptr_t[10]")  # two OSSL_PARAMs: key, type, data, size, returned size
    name = ctypes.create_string_buffer(b"pub")
    parameters[0], parameters[1] = ctypes.addressof(name), 5
    parameters[2], parameters[3] = ctypes.addressof(public), 32
    key = pointer()
    assert openssl_function("EVP_PKEY_fromdata_init", ctypes.c_int, pointer)(maker) == 1
    made = openssl_function("EVP_PKEY_fromdata", ctypes.c_int, pointer, pointer, ctypes.c_int, pointer)
    assert made(maker, ctypes.byref(key), 0x86, int(ffi.cast("uintptr_t", parameters))) == 1
    holder = openssl_function("EVP_PKEY_get0_provider", pointer, pointer)(key)
    name_of = openssl_function("OSSL_PROVIDER_get0_name", ctypes.c_char_p, pointer)
    found = str(name_of(holder).decode())
    openssl_function("EVP_PKEY_free", None, pointer)(key)
    openssl_function("EVP_PKEY_CTX_free", None, pointer)(maker)
    return found


def use_elsewhere(identity_cert: str, identity_key: str) -> None:
    """Use X25519 in all the ways that are not ours, and see that none of them takes a pair or leaves the provider."""
    before = engine_shim.counters()
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    assert one.exchange(other.public_key()) == other.exchange(one.public_key())
    assert provider_of_plain_keys() == "default"
    near = SSL.Context(SSL.TLS_SERVER_METHOD)
    near.use_certificate_chain_file(identity_cert)
    near.use_privatekey_file(identity_key)
    for version in VERSIONS.values():
        far = SSL.Context(SSL.TLS_CLIENT_METHOD)
        far.set_max_proto_version(version)
        with Pair(near, far, offloaded=False) as pair:
            assert pair.finish() is Status.DONE
    client = ssl.create_default_context()
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(*ends, server_hostname="localhost").do_handshake()
    after = engine_shim.counters()
    assert (after.x25519_made, after.x25519_used) == (before.x25519_made, before.x25519_used)


def use_ours(identity_cert: str, identity_key: str) -> None:
    near = ahead_context()
    near.use_certificate_chain_file(identity_cert)
    near.use_privatekey_file(identity_key)
    before = used()
    for version in VERSIONS.values():
        far = SSL.Context(SSL.TLS_CLIENT_METHOD)
        far.set_max_proto_version(version)
        with Pair(near, far, offloaded=False) as pair:
            assert pair.finish() is Status.DONE
            assert pair.echo() == b"ping"
    assert used() == before + len(VERSIONS)


def forget_methods() -> None:
    """Let OpenSSL forget what it has fetched in the default library context."""
    assert lib.openssl_provider_set_query(b"") == lib.SHIM_OK


def use_in_order(order: str, cert: str, key: str) -> None:
    """O: others, A: ours, F: the caches are flushed."""
    engine_shim.attach()
    at_first = providers()
    for step in order:
        if step == "F":
            forget_methods()
        else:
            (use_ours if step == "A" else use_elsewhere)(cert, key)
    assert providers() == at_first, providers()
    click.echo("done")


@pytest.mark.parametrize("order", ["OAO", "AOA", "AFOAFO", "FAOFOA"])
def test_others_stay_with_openssl(identity: Identity, order: str) -> None:
    assert apart.run(use_in_order, order, identity.cert, identity.key) == "done\n"
