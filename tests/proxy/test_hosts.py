"""What Host headers and paths mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.hosts import LiveView, Own, PathForm, Standby, Unknown, parse_host, parse_path_form

DOMAIN = "greenroom.test"
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("local--hello.greenroom.test", Standby("local--hello"), id="a standby host by name"),
        pytest.param("abcdefghij1234567.greenroom.test", Standby("abcdefghij1234567"), id="by the Actor's id"),
        pytest.param("Local--Hello.GreenRoom.TEST:8010", Standby("local--hello"), id="case and port"),
        pytest.param("local--hello.greenroom.test.", Standby("local--hello"), id="trailing dot"),
        pytest.param("local--hello.greenroom.test.:80", Standby("local--hello"), id="trailing dot and port"),
        pytest.param("k3j5.runs.greenroom.test", LiveView("k3j5"), id="a live view"),
        pytest.param("K3J5.RUNS.greenroom.test:1", LiveView("k3j5"), id="a live view in capitals"),
        pytest.param("greenroom.test", Own(), id="the domain"),
        pytest.param("api.greenroom.test", Own(), id="the API"),
        pytest.param("console.greenroom.test:443", Own(), id="the console"),
        pytest.param("127.0.0.1", Own(), id="IPv4"),
        pytest.param("127.0.0.1:8010", Own(), id="IPv4 and port"),
        pytest.param("[::1]", Own(), id="IPv6"),
        pytest.param("[2001:db8::1]:8010", Own(), id="IPv6 and port"),
        pytest.param("localhost", Own(), id="localhost under any domain"),
        pytest.param("LOCALHOST:8010", Own(), id="localhost and port"),
        pytest.param("local--hello.greenroom.test:", Standby("local--hello"), id="an empty port is legal"),
        pytest.param("runs.greenroom.test", Unknown(), id="the parent of live views is nobody's"),
        pytest.param("a.b.greenroom.test", Unknown(), id="two labels"),
        pytest.param("a.api.greenroom.test", Unknown(), id="below the API"),
        pytest.param("a.b.runs.greenroom.test", Unknown(), id="two labels of a live view"),
        pytest.param("example.com", Unknown(), id="another domain"),
        pytest.param("evilgreenroom.test", Unknown(), id="a domain that only ends like ours"),
        pytest.param("a.localhost", Unknown(), id="below localhost where it is not the domain"),
        pytest.param("", Unknown(), id="empty"),
        pytest.param(".greenroom.test", Unknown(), id="an empty label"),
        pytest.param("a..greenroom.test", Unknown(), id="an empty label within"),
        pytest.param("a.greenroom.test..", Unknown(), id="two trailing dots"),
        pytest.param("bob@a.greenroom.test", Unknown(), id="user info"),
        pytest.param("a.greenroom.test b.greenroom.test", Unknown(), id="a space"),
        pytest.param(" a.greenroom.test", Unknown(), id="a leading space"),
        pytest.param("a.greenroom.test,b.greenroom.test", Unknown(), id="several"),
        pytest.param("a.greenroom.test/x", Unknown(), id="a path"),
        pytest.param("a.greenroom.test:80:80", Unknown(), id="two ports"),
        pytest.param("a.greenroom.test:http", Unknown(), id="a port by name"),
        pytest.param("-a.greenroom.test", Unknown(), id="a label that begins with a hyphen"),
        pytest.param("a_b.greenroom.test", Unknown(), id="an underscore"),
        pytest.param("a" * 64 + ".greenroom.test", Unknown(), id="a label of 64"),
        pytest.param("a" * 63 + ".greenroom.test", Standby("a" * 63), id="a label of 63"),
        pytest.param("ä.greenroom.test", Unknown(), id="not ASCII"),
        pytest.param("\u212aelvin.greenroom.test", Unknown(), id="a letter that lowers to ASCII"),
        pytest.param("[::1", Unknown(), id="an open bracket"),
        pytest.param("[127.0.0.1]", Unknown(), id="IPv4 in brackets"),
        pytest.param("[fe80::1%25eth0]", Unknown(), id="a zone"),
        pytest.param("999.1.1.1", Unknown(), id="no IPv4 after all"),
        pytest.param("a.greenroom.test\r\n", Unknown(), id="a line break"),
        pytest.param("a.greenroom.test\n", Unknown(), id="a line feed at the end"),
    ],
)
def test_parse_host(host: str, expected: object) -> None:
    """Each host names an Actor, a run, Greenroom or nobody; the same as text and as bytes."""
    assert parse_host(host, DOMAIN) == expected
    assert parse_host(host.encode("utf-8"), DOMAIN) == expected


def test_hosts_under_localhost() -> None:
    """The default domain needs no DNS: hosts below localhost are Actors."""
    assert parse_host("local--hello.localhost:8010", "localhost") == Standby("local--hello")
    assert parse_host("k3.runs.localhost:8010", "localhost") == LiveView("k3")
    assert parse_host("api.localhost", "localhost") == Own()


@given(st.binary(max_size=80) | st.text(max_size=80))
def test_parse_host_never_raises(host: bytes | str) -> None:
    """Whatever comes is one of the four."""
    assert isinstance(parse_host(host, DOMAIN), Standby | LiveView | Own | Unknown)


@given(LABELS, st.sampled_from(["", "runs."]), st.sampled_from(["", ":80", ":65535"]), st.booleans(), st.booleans())
def test_spelling_does_not_matter(label: str, middle: str, port: str, has_dot: bool, is_upper: bool) -> None:
    """Letter case, port and trailing dot change nothing."""
    name = f"{label}.{middle}{DOMAIN}"
    spelled = (name.upper() if is_upper else name) + ("." if has_dot else "") + port
    assert parse_host(spelled, DOMAIN) == parse_host(name, DOMAIN)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(
            b"/standby/bob--hello/a/b", PathForm("standby", "bob--hello", "/standby/bob--hello"), id="with a rest"
        ),
        pytest.param(b"/standby/bob--hello/", PathForm("standby", "bob--hello", "/standby/bob--hello"), id="a slash"),
        pytest.param(b"/standby/bob--hello", PathForm("standby", "bob--hello", "/standby/bob--hello"), id="bare"),
        pytest.param(b"/standby/Bob--Hello/x", PathForm("standby", "bob--hello", "/standby/Bob--Hello"), id="capitals"),
        pytest.param(b"/live/k3j5/ws", PathForm("live", "k3j5", "/live/k3j5"), id="a live view"),
        pytest.param(b"/live/k3j5//x", PathForm("live", "k3j5", "/live/k3j5"), id="the rest is not touched"),
        pytest.param(b"/live/k3/%2F\n", PathForm("live", "k3", "/live/k3"), id="whatever the rest is"),
        pytest.param(b"/standby/", None, id="no label"),
        pytest.param(b"/standby", None, id="no label, no slash"),
        pytest.param(b"/standby//x", None, id="an empty label"),
        pytest.param(b"/standby/a%2Db/x", None, id="an encoded label"),
        pytest.param(b"/standby/a.b/x", None, id="two labels"),
        pytest.param(b"/Standby/a/x", None, id="another word"),
        pytest.param(b"/v2/standby/a/x", None, id="not at the start"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"*", None, id="the server itself"),
    ],
)
def test_parse_path_form(path: bytes, expected: PathForm | None) -> None:
    """The path form names a label; its prefix is exactly what was sent."""
    assert parse_path_form(path) == expected


@given(st.binary(max_size=60), st.sampled_from([b"", b"/standby/", b"/live/"]))
def test_a_prefix_is_a_prefix(rest: bytes, start: bytes) -> None:
    """What is to be stripped stands at the start of the path, and a path follows or nothing."""
    form = parse_path_form(start + rest)
    if form is not None:
        assert (start + rest).startswith(form.prefix.encode())
        assert (start + rest)[len(form.prefix) :][:1] in (b"", b"/")
