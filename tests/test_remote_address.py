"""Addresses of key servers: what may be written, and what it means."""

from __future__ import annotations

import pytest

from tlsserver.errors import ConfigurationError
from tlsserver.signers.remote_address import Address, parse

GOOD = {
    "unix:/run/signer.sock": Address(path="/run/signer.sock"),
    "unix:@signer": Address(path="@signer"),
    "unix+tls:/run/signer.sock": Address(path="/run/signer.sock", uses_tls=True),
    "unix:/odd name: with anything": Address(path="/odd name: with anything"),
    "keys.example:2407": Address(host="keys.example", port=2407, uses_tls=True),
    "192.0.2.7:1": Address(host="192.0.2.7", port=1, uses_tls=True),
    "[::1]:65535": Address(host="::1", port=65535, uses_tls=True),
    "[fe80::1%eth0]:99": Address(host="fe80::1%eth0", port=99, uses_tls=True),
}

BAD = [
    *("", ":", "unix:", "unix:@", "unix+tls:", "keys.example", "keys.example:", ":2407", "keys.example:0"),
    *("keys.example:65536", "keys.example:http", "::1:2407", "[::1]", "[::1]2407", "[keys.example]:1", "a b:1"),
    *(
        "tcp://keys.example:1",
        "keys.example:1/",
        "unix:/" + "x" * 107,
        "unix:/a\0b",
        "keys.example:1\n",
        "h:\u0661",
        "[::1::]:1",
        f"{'x' * 64}.test:1",
    ),
]


@pytest.mark.parametrize("text", GOOD)
def test_address(text: str) -> None:
    assert parse(text) == GOOD[text]
    assert str(parse(text)) == text
    assert parse(parse(text)) is not None


@pytest.mark.parametrize("index", range(len(BAD)))
def test_what_is_no_address(index: int) -> None:
    with pytest.raises(ConfigurationError, match=r"is no address.*write unix:/run/signer.sock") as caught:
        parse(BAD[index])
    assert "\n" not in str(caught.value)


def test_abstract_name() -> None:
    assert parse("unix:@signer").unix_name == "\0signer"
    assert parse("unix:/run/signer").unix_name == "/run/signer"


def test_longest_path() -> None:
    path = "/" + "x" * 106
    assert parse(f"unix:{path}").path == path
    with pytest.raises(ConfigurationError, match="its path has 108 bytes where 107 are the most"):
        parse(f"unix:{path}x")
