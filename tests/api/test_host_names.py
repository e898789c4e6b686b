"""Host names as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.host_names import canonical, checked_name, shown
from gateway.core.errors import InvalidRequest
from gateway.core.names import NameKind
from gateway.proxy.hosts import host_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("shop", (NameKind.ALIAS, "shop"), id="a label"),
        pytest.param(" Shop. ", (NameKind.ALIAS, "shop"), id="capitals, a dot, spaces around"),
        pytest.param("SHOP.Greenroom.test", (NameKind.ALIAS, "shop"), id="an alias with its domain"),
        pytest.param("B\u00fccher", (NameKind.ALIAS, "xn--bcher-kva"), id="an alias in Unicode"),
        pytest.param("Shop.Example.Com.", (NameKind.DOMAIN, "shop.example.com"), id="a domain"),
        pytest.param("b\u00fccher.example", (NameKind.DOMAIN, "xn--bcher-kva.example"), id="Unicode"),
        pytest.param("B\u00dcCHER.example", (NameKind.DOMAIN, "xn--bcher-kva.example"), id="Unicode in capitals"),
        pytest.param("xn--bcher-kva.EXAMPLE", (NameKind.DOMAIN, "xn--bcher-kva.example"), id="what DNS has"),
        pytest.param("fa\u00df.example", (NameKind.DOMAIN, "xn--fa-hia.example"), id="IDNA 2008, not 2003"),
        pytest.param("\uff57\uff57.example\u3002com", (NameKind.DOMAIN, "ww.example.com"), id="wide letters and dot"),
        pytest.param("ab--cd.example.com", (NameKind.DOMAIN, "ab--cd.example.com"), id="hyphens as in plain names"),
    ],
)
def test_what_is_understood(text: str, expected: tuple[NameKind, str]) -> None:
    """One name however it is written; read again it is the same."""
    kind, name = checked_name(text, "greenroom.test")
    assert (kind, name) == expected
    assert checked_name(name, "greenroom.test") == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="a dot"),
        pytest.param("shop.example..", id="two dots"),
        pytest.param("a b", id="a space"),
        pytest.param("\u2603.example", id="a symbol"),
        pytest.param("xn--a.example", id="no Punycode"),
        pytest.param("xn--BCHER-KV\u00c4.example", id="Unicode within Punycode"),
        pytest.param("\u212aelvin\u200d.example", id="a joiner at the end"),
        pytest.param("b\u00fccher_.example", id="an underscore"),
        pytest.param("\u0661\u0662.example", id="digits of another direction"),
        pytest.param("a" * 1001, id="endless"),
        pytest.param("\u00fc" * 64 + ".example", id="a label too long"),
        pytest.param("http://shop.example", id="a URL"),
        pytest.param("[::1]", id="IPv6"),
        pytest.param("half \ud83d.example", id="half a character"),
    ],
)
def test_what_is_refused(text: str) -> None:
    """With the name of the field."""
    with pytest.raises(InvalidRequest) as refused:
        checked_name(text, "greenroom.test")
    assert refused.value.data == {"field": "name"}


@given(st.text(max_size=40) | st.from_regex(r"([a-zA-Z\u00e0-\u00ff-]{1,8}\.){1,3}", fullmatch=True))
def test_whatever_comes(text: str) -> None:
    """It is refused, or it is a name that a Host header can have, and the same when it is read again."""
    try:
        _, name = checked_name(text, "greenroom.test")
    except InvalidRequest:
        return
    assert host_name(name) == name
    assert canonical(name) == name
    assert canonical(shown(name)) == name


def test_in_its_own_alphabet() -> None:
    """What can't be shown so is shown as it is."""
    assert shown("xn--bcher-kva.example") == "b\u00fccher.example"
    assert shown("shop.example") == "shop.example"
    assert shown("xn--a.example") == "xn--a.example"
