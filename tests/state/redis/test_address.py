"""What a signals_url means, and what is said of one that means nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidConfig
from gateway.state.redis.address import RedisAddress, check_namespace, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("redis://127.0.0.1", RedisAddress(places=(("127.0.0.1", 6379),)), id="no port, no database"),
        pytest.param("REDIS://Host:7000/15", RedisAddress(places=(("host", 7000),), database=15), id="all of one"),
        pytest.param("redis://[::1]:7000", RedisAddress(places=(("::1", 7000),)), id="IPv6"),
        pytest.param(
            "redis://me:p%40ss%2Fword@host",
            RedisAddress(places=(("host", 6379),), username="me", password="p@ss/word"),
            id="user and password",
        ),
        pytest.param(
            "redis://:secret@host", RedisAddress(places=(("host", 6379),), password="secret"), id="password alone"
        ),
        pytest.param(
            "rediss://host/1?ssl_ca_certs=/etc/ca.pem",
            RedisAddress(places=(("host", 6379),), database=1, has_tls=True, files={"ssl_ca_certs": "/etc/ca.pem"}),
            id="TLS",
        ),
        pytest.param(
            "redis+sentinel://:pw@one:1,two,[::3]:3/2?service=main",
            RedisAddress(places=(("one", 1), ("two", 26379), ("::3", 3)), service="main", database=2, password="pw"),
            id="Sentinels",
        ),
        pytest.param(
            "rediss+sentinel://one?service=main",
            RedisAddress(places=(("one", 26379),), service="main", has_tls=True),
            id="Sentinels by TLS",
        ),
        pytest.param("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock"), id="unix socket"),
        pytest.param(
            "unix://me:pw@/run/redis.sock?db=3",
            RedisAddress(path="/run/redis.sock", database=3, username="me", password="pw"),
            id="unix socket with all",
        ),
    ],
)
def test_addresses(url: str, address: RedisAddress) -> None:
    """Each kind of URL, as the page on Redis lists them."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("", "it begins with one of", id="empty"),
        pytest.param("127.0.0.1:6379", "it begins with one of", id="no scheme"),
        pytest.param("http://hunter2@host", "it begins with one of", id="another scheme"),
        pytest.param("redis://", "each host is a name", id="no host"),
        pytest.param("redis://:hunter2@:6379", "each host is a name", id="no host but all else"),
        pytest.param("redis://ho st", "each host is a name", id="space"),
        pytest.param("redis://hunter2@[::1", "host can't be read", id="half an IPv6 address"),
        pytest.param("redis://user:hunter2@host:port", "a port is a number", id="port in letters"),
        pytest.param("redis://host:70000", "a port is a number", id="port too large"),
        pytest.param("redis://host:0", "each host is a name", id="port 0"),
        pytest.param("redis://host/first", "the number of the database", id="database by name"),
        pytest.param("redis://host/-1", "the number of the database", id="database below 0"),
        pytest.param("redis://host/\N{ARABIC-INDIC DIGIT ONE}", "the number of the database", id="other digits"),
        pytest.param("redis://host/99999999999", "the number of the database", id="database too large"),
        pytest.param("redis://one,two", "several hosts are for redis+sentinel", id="two servers"),
        pytest.param("redis://host?service=main", "there may be nothing, not service", id="service without Sentinels"),
        pytest.param("redis://host?ssl_ca_certs=/ca", "there may be nothing", id="file without TLS"),
        pytest.param("rediss://host?ssl_cert_reqs=none", "not ssl_cert_reqs", id="certificate unchecked"),
        pytest.param("redis+sentinel://host", "?service=NAME", id="Sentinels without service"),
        pytest.param("redis+sentinel://" + ",".join("abcdefghijklmnopqrstu") + "?service=x", "at most 20", id="many"),
        pytest.param("redis://:hunter2#1@host", "in a password that is %23", id="# in a password"),
        pytest.param("unix://run/redis.sock", "three slashes", id="relative path"),
        pytest.param("unix:///run/redis.sock?db=x", "the number of the database", id="unix socket, database"),
    ],
)
def test_wrong_addresses(url: str, says: str) -> None:
    """The message says what to do, and never what the password is."""
    with pytest.raises(InvalidConfig) as raised:
        parse_address(url)
    assert says in raised.value.message
    assert "hunter2" not in raised.value.message
    assert raised.value.data == {"field": "signals_url"}


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """Nothing but InvalidConfig comes of a text that is none."""
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}?service=x", f"unix://{text}"):
        try:
            parse_address(url)
        except InvalidConfig:
            continue


@given(st.text(min_size=1), st.text(min_size=1))
def test_passwords_stay_out_of_sight(username: str, password: str) -> None:
    """Neither as text nor as repr."""
    plain, secret = (
        RedisAddress(places=(("host", 1),), username=name, password=word)
        for name, word in ((None, None), (username, password))
    )
    assert (str(secret), repr(secret)) == (str(plain), repr(plain))


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("redis://:pw@host", "host:6379"),
        ("redis://[::1]:1", "[::1]:1"),
        ("unix://:pw@/run/x", "/run/x"),
        ("redis+sentinel://:pw@one,two:2?service=main", "main of the Sentinels one:26379, two:2"),
    ],
)
def test_addresses_in_words(address: str, text: str) -> None:
    """As logs and errors name them."""
    assert str(parse_address(address)) == text


@pytest.mark.parametrize("namespace", ["", "a b", "a{b", "*", "ü", "a" * 64, "-a", "a\n"])
def test_wrong_namespaces(namespace: str) -> None:
    """What would match other keys in a pattern, or break the braces."""
    with pytest.raises(InvalidConfig, match="1 to 63 letters"):
        check_namespace(namespace)


@pytest.mark.parametrize("namespace", ["greenroom", "a", "a.b-c_D9", "a" * 63])
def test_namespaces(namespace: str) -> None:
    """Plain names."""
    assert check_namespace(namespace) == namespace
