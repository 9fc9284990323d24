"""PKCS #11 URIs as RFC 7512 has them."""

# ruff: noqa: S106 - a token's label is no secret
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_uri import Pkcs11Uri

GOOD = {
    "pkcs11:": Pkcs11Uri(),
    "PKCS11:token=web": Pkcs11Uri(token="web"),
    "pkcs11:object=my-pubkey;type=public": Pkcs11Uri(object="my-pubkey", type="public"),
    "pkcs11:object=k;type=private?pin-source=file:/etc/token": Pkcs11Uri(
        object="k", type="private", pin_source="file:/etc/token"
    ),
    "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin": Pkcs11Uri(
        token="Software PKCS#11 softtoken", manufacturer="Snake Oil, Inc.", pin_value=b"the-pin"
    ),
    "pkcs11:slot-description=Sun%20Metaslot;slot-id=327": Pkcs11Uri(slot_description="Sun Metaslot", slot_id=327),
    "pkcs11:library-manufacturer=Snake;library-description=Soft;library-version=1.23": Pkcs11Uri(
        library_manufacturer="Snake", library_description="Soft", library_version="1.23"
    ),
    "pkcs11:token=T;id=%69%95%3e%5C%f4;serial=;model=1.0": Pkcs11Uri(
        token="T", id=b"\x69\x95\x3e\x5c\xf4", serial="", model="1.0"
    ),
    "pkcs11:token=a%3Bb%25c;id=%00%ff?module-path=/lib/a%26b.so&module-name=x": Pkcs11Uri(
        token="a;b%c", id=b"\0\xff", module_path="/lib/a&b.so", module_name="x"
    ),
    "pkcs11:token=%C3%A9+&=:?pin-source=|/bin/x": Pkcs11Uri(token="é+&=:", pin_source="|/bin/x"),
    "pkcs11:slot-manufacturer=M?vendor-attr=1&vendor-attr=2": Pkcs11Uri(slot_manufacturer="M"),
}

BAD = {
    "https://token": "begins with pkcs11:",
    "pkcs11:token": "needs name=value",
    "pkcs11:token=a;": "needs name=value",
    "pkcs11:;token=a": "needs name=value",
    "pkcs11:tok en=a": "needs name=value",
    "pkcs11:token=a b": "token has a character that must be percent-encoded",
    "pkcs11:token=a/b": "token has a character that must be percent-encoded",
    "pkcs11:token=a#b": "token has a character that must be percent-encoded",
    "pkcs11:token=%4": "token has a character that must be percent-encoded",
    "pkcs11:token=%g0": "token has a character that must be percent-encoded",
    "pkcs11:token=%ff": "token is not UTF-8",
    "pkcs11:token=a;token=b": "has token twice",
    "pkcs11:?pin-source=a&pin-source=b": "has pin-source twice",
    "pkcs11:vendor=x": "path has vendor, which is not known",
    "pkcs11:object=k;pin-value=1": "pin-value in its path: it belongs behind",
    "pkcs11:?token=web": "has token in its query: it belongs before",
    "pkcs11:?pin-value=1&pin-source=file:/x": "both pin-source and pin-value",
    "pkcs11:slot-id=one": "slot-id is 'one': it is a number",
    "pkcs11:slot-id=": "slot-id is '': it is a number",
    f"pkcs11:slot-id={'1' * 5000}": "it is a number",
    "pkcs11:?module-path=/lib/a.so%00b": "module-path has a character that cannot be in it",
    "pkcs11:?pin-source=file:/a%00b": "pin-source has a character that cannot be in it",
    "pkcs11:?module-name=..%2F..%2Ftmp%2Fevil": "module-name has a character that cannot be in it",
    "pkcs11:type=key": "type cannot be 'key'",
    "pkcs11:library-version=1.2.3": "library-version cannot be",
}


@pytest.mark.parametrize("text", GOOD)
def test_uri(text: str) -> None:
    assert Pkcs11Uri.parse(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(ConfigurationError, match=BAD[text]):
        Pkcs11Uri.parse(text)


def test_the_pin_is_in_no_representation_and_no_error() -> None:
    assert "7531" not in repr(Pkcs11Uri.parse("pkcs11:token=web?pin-value=7531"))
    for text in ("pkcs11:?pin-value=75 31", "pkcs11:?pin-value=7531&pin-value=7531", "pkcs11:pin-value=7531"):
        with pytest.raises(ConfigurationError) as caught:
            Pkcs11Uri.parse(text)
        assert "31" not in str(caught.value).replace("PKCS #11", "")


def test_what_is_meant_is_said() -> None:
    uri = Pkcs11Uri.parse("pkcs11:token=web;serial=12;object=key;id=%01%0a?pin-value=7531")
    assert uri.describe_token() == "token 'web', serial '12'"
    assert uri.describe_key() == "label 'key' and id 010a"
    assert (Pkcs11Uri().describe_token(), Pkcs11Uri().describe_key()) == ("any token", "any label")


@given(st.text(alphabet="pkcs11:;=?&%tokenid-valu0/ \0é"))
def test_any_text_is_a_uri_or_an_error(text: str) -> None:
    try:
        Pkcs11Uri.parse(f"pkcs11:{text}")
    except ConfigurationError:
        return


@given(st.binary(), st.text(alphabet=st.characters(codec="utf-8")))
def test_whatever_is_encoded_comes_back(identifier: bytes, label: str) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in label.encode())
    uri = Pkcs11Uri.parse(f"pkcs11:id={''.join(f'%{byte:02X}' for byte in identifier)};object={encoded}")
    assert (uri.id, uri.object) == (identifier, label)
