"""The addresses of shared stores: which are accepted, what is told of others, and that no password is ever shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store_urls import (
    LONGEST_URL,
    blobs_problem,
    first_place,
    has_password,
    masked,
    records_problem,
    signals_problem,
)


@pytest.mark.parametrize(
    ("check", "url"),
    [
        pytest.param(signals_problem, "redis://127.0.0.1:6379/0", id="redis"),
        pytest.param(signals_problem, "redis://localhost", id="redis, nothing but a host"),
        pytest.param(signals_problem, "rediss://user:p%40ss@redis.example.com:6380/15", id="tls and a password"),
        pytest.param(signals_problem, "redis://[::1]:6379/0", id="ipv6"),
        pytest.param(signals_problem, "unix:///run/redis.sock", id="socket"),
        pytest.param(signals_problem, "redis+sentinel://a:1,b:2,c:3/0?service=mymaster", id="sentinel"),
        pytest.param(signals_problem, "rediss+sentinel://:pw@a:1,b:2/0?service=m", id="sentinel with tls"),
        pytest.param(records_problem, "postgresql://u:p@db.example.com:5432/greenroom", id="postgresql"),
        pytest.param(records_problem, "postgresql://u@db/greenroom?sslmode=require", id="postgresql with tls"),
        pytest.param(blobs_problem, "s3://bucket", id="bucket"),
        pytest.param(blobs_problem, "s3://my.bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu", id="local s3"),
    ],
)
def test_addresses_that_are_accepted(check, url):
    """All the forms that the settings promise."""
    assert check(url) is None


@pytest.mark.parametrize(
    ("check", "url", "told"),
    [
        pytest.param(signals_problem, "127.0.0.1:6379", "redis://HOST", id="no scheme"),
        pytest.param(signals_problem, "memcached://a", "redis://HOST", id="another store"),
        pytest.param(signals_problem, "redis:///0", "a host", id="no host"),
        pytest.param(signals_problem, "redis://a:70000/0", "1 to 65535", id="port too large"),
        pytest.param(signals_problem, "redis://a:0/0", "1 to 65535", id="port 0"),
        pytest.param(signals_problem, "redis://a/first", "number of a database", id="database by name"),
        pytest.param(signals_problem, "redis://a:1,b:2/0", "redis+sentinel://", id="several hosts, no sentinel"),
        pytest.param(signals_problem, "redis+sentinel://a:1/0", "?service=", id="no service"),
        pytest.param(signals_problem, "redis+sentinel://a:1,/0?service=m", "a host", id="an empty host"),
        pytest.param(signals_problem, "redis://u:s3cret/x@a:1/0", "redis://HOST", id="a slash in the password"),
        pytest.param(signals_problem, "redis://u:s3cret#x@a:1/0", "redis://HOST", id="a hash in the password"),
        pytest.param(signals_problem, "redis://[::1", "redis://HOST", id="half an address"),
        pytest.param(signals_problem, "unix://run", "unix:///PATH", id="socket without a path"),
        pytest.param(signals_problem, "redis://" + "a" * LONGEST_URL, "redis://HOST", id="too long"),
        pytest.param(signals_problem, "redis://a\n/0", "redis://HOST", id="a line break"),
        pytest.param(records_problem, "sqlite:///x", "postgresql://USER", id="sqlite"),
        pytest.param(records_problem, "postgresql://u:p@db", "name of a database", id="no database"),
        pytest.param(records_problem, "postgresql://u:p@db/a/b", "name of a database", id="a path"),
        pytest.param(records_problem, "postgresql://u:p@/greenroom", "a host", id="no database host"),
        pytest.param(blobs_problem, "s3://", "bucket", id="no bucket"),
        pytest.param(blobs_problem, "s3://B", "bucket", id="no bucket's name"),
        pytest.param(blobs_problem, "s3://key:s3cret@bucket", "AWS_SECRET_ACCESS_KEY", id="keys"),
        pytest.param(blobs_problem, "s3://bucket?endpoint=ftp://a", "endpoint=", id="endpoint"),
        pytest.param(blobs_problem, "https://bucket", "s3://BUCKET", id="https"),
    ],
)
def test_addresses_that_are_not(check, url, told):
    """What is wrong is told, and nothing of the address, which may hold a password."""
    problem = check(url)
    assert problem is not None
    assert told in problem
    assert "s3cret" not in problem


@given(
    password=st.text(min_size=1, max_size=20).map(lambda text: "pw-" + quote(text, safe="")),
    user=st.sampled_from(["", "green"]),
    place=st.sampled_from(["a:1", "a:1,b:2", "[::1]:6379"]),
)
def test_no_password_is_shown(password, user, place):
    """Whatever the password: what is shown does not hold it, but all else."""
    url = f"redis+sentinel://{user}:{password}@{place}/0?service=m&password={password}"
    assert signals_problem(url) is None
    assert masked(url) == f"redis+sentinel://{user}:***@{place}/0?service=m&password=***"
    assert has_password(url)


@pytest.mark.parametrize("url", ["redis://a:1/0", "redis://user@a/0", "unix:///run/x", "s3://b?endpoint=http://a:1"])
def test_addresses_without_a_password_are_shown_as_they_are(url):
    """Nothing is masked where there is nothing to hide."""
    assert (masked(url), has_password(url)) == (url, False)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        pytest.param("redis://u:p@a:7000/0", ("a", 7000), id="host and port"),
        pytest.param("redis://localhost", ("localhost", 6379), id="the usual port"),
        pytest.param("redis://[::1]:7000/0", ("::1", 7000), id="ipv6"),
        pytest.param("rediss+sentinel://:p@a:1,b:2/0?service=m", ("a", 1), id="the first of several"),
        pytest.param("unix:///run/redis.sock", None, id="a socket"),
        pytest.param("", None, id="none"),
        pytest.param("redis://a:x", None, id="no port"),
    ],
)
def test_the_first_place(url, place):
    """Where the signals are, for who looks for his own address on the way there."""
    assert first_place(url) == place
