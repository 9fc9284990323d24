"""What `tlsserver.asyncio.SSLContext` refuses, each by its name and with what to do."""

from __future__ import annotations

import copy
import pickle
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from support.asyncio_contexts import CLIENT, SERVER, put, server_of
from tlsserver import ConfigurationError
from tlsserver.asyncio.context import SSLContext
from tlsserver.asyncio.plain import NotSupportedError
from tlsserver.asyncio.refused import CANNOT_BE_SET

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)


# What is refused.

REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "SSLv3": (lambda c: put(c, "minimum_version", ssl.TLSVersion.SSLv3), "SSLv3 is not supported"),
    "TLSv1": (lambda c: put(c, "minimum_version", ssl.TLSVersion.TLSv1), "TLSv1 is not supported"),
    "TLSv1_1": (lambda c: put(c, "maximum_version", ssl.TLSVersion.TLSv1_1), "TLSv1_1 is not supported"),
    "sni_callback": (lambda c: put(c, "sni_callback", print), "sni_callback cannot be set.*on_client_hello="),
    "set_servername_callback": (
        lambda c: c.set_servername_callback(print),
        "sni_callback cannot be set.*certificates=",
    ),
    "post_handshake_auth": (lambda c: put(c, "post_handshake_auth", True), "post_handshake_auth cannot be set"),
    "_msg_callback": (lambda c: put(c, "_msg_callback", print), "_msg_callback cannot be set.*keylog_filename"),
    "set_npn_protocols": (lambda c: c.set_npn_protocols(["h2"]), "set_npn_protocols.*use set_alpn_protocols"),
    "load_dh_params": (lambda c: c.load_dh_params("dh.pem"), "load_dh_params.*remove it"),
    "psk client": (lambda c: c.set_psk_client_callback(print), "set_psk_client_callback.*use certificates"),
    "psk server": (lambda c: c.set_psk_server_callback(print, "hint"), "set_psk_server_callback.*use certificates"),
    "client_sigalgs": (lambda c: c.set_client_sigalgs("ed25519"), "set_client_sigalgs.*use set_server_sigalgs"),
    "_set_alpn_protocols": (lambda c: c._set_alpn_protocols(b""), "use set_alpn_protocols"),
    "options": (lambda c: put(c, "options", c.options | 1 << 3), "options .*leave it out"),
    "verify_flags": (lambda c: put(c, "verify_flags", 1 << 20), "verify_flags 0x100000.*leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, context: SSLContext) -> None:
    deed, says = REFUSED[name]
    before = context.server_context()
    with pytest.raises(NotSupportedError, match=says) as caught:
        deed(context)
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, NotImplementedError)
    assert "\n" not in str(caught.value)
    assert context.server_context() is before


def test_what_cannot_be_set_says_why() -> None:
    for name, (value, why) in CANNOT_BE_SET.items():
        assert getattr(SSLContext(), name) is value
        assert why in (getattr(SSLContext, name).__doc__ or "")


@pytest.mark.parametrize("deed", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(deed: Callable[[object], object], context: SSLContext) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied: make one in each process"):
        deed(context)


@pytest.mark.parametrize("name", ["foo", "password", "certificate"])
def test_there_is_no_such_option(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        SSLContext(SERVER, **{name: 1})  # type: ignore[arg-type] # what it is about
    with pytest.raises(TypeError, match="num_tickets"):
        SSLContext(CLIENT, num_tickets=1)
