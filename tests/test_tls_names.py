"""Which files make a certificate, which certificate answers which name, and what is told of its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.tls_names import Certificate, NameTable, Pair, expiry_warning, key_of, pairs_among

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def certificate(*names: str, days: float = 90, age_days: float = 1) -> Certificate:
    """One for *names* that began *age_days* ago and ends in *days*."""
    return Certificate(names=names, starts=NOW - timedelta(days=age_days), ends=NOW + timedelta(days=days))


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["b.pem", "a.key", "a.pem", "b.key"], [("a.pem", "a.key"), ("b.pem", "b.key")], id="by name"),
        pytest.param(["a.b.crt", "a.b.key"], [("a.b.crt", "a.b.key")], id="crt, and dots in the name"),
        pytest.param(["tls.crt", "tls.key", "ca.crt"], [("tls.crt", "tls.key")], id="Kubernetes"),
        pytest.param(
            ["_wildcard.a.pem", "_wildcard.a-key.pem"], [("_wildcard.a.pem", "_wildcard.a-key.pem")], id="mkcert"
        ),
        pytest.param(
            ["README", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"],
            [("fullchain.pem", "privkey.pem")],
            id="certbot",
        ),
        pytest.param(["cert.pem", "cert.key"], [("cert.pem", "cert.key")], id="cert.pem of somebody else"),
        pytest.param(["fullchain.pem", "fullchain.key"], [("fullchain.pem", "fullchain.key")], id="not certbot"),
        pytest.param(["a.pem"], [], id="no key"),
        pytest.param(["a.key", "privkey.pem"], [], id="no certificate"),
        pytest.param(["a.pem.bak", "a.key", "a.txt"], [], id="others"),
    ],
)
def test_pairs_among(names: list[str], pairs: list[tuple[str, str]]) -> None:
    """In the order of their names, whatever else is there."""
    assert pairs_among(names) == [Pair(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("chain", "names", "key"),
    [
        ("a.pem", ["a.pem", "a.key"], "a.key"),
        ("a.pem", ["a.pem", "b.key"], None),
        ("fullchain.pem", ["privkey.pem"], "privkey.pem"),
        ("noending", ["noending.key"], None),
    ],
)
def test_key_of(chain: str, names: list[str], key: str | None) -> None:
    """That of the same name, by any of the conventions."""
    assert key_of(chain, names) == key


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("example.com", "own", id="exactly"),
        pytest.param("EXAMPLE.com.", "own", id="letter case and a final dot don't matter"),
        pytest.param("a.example.com", "wild", id="a wildcard is for one label"),
        pytest.param("www.example.com", "www", id="an exact name before a wildcard"),
        pytest.param("a.b.example.com", "first", id="not for two"),
        pytest.param("x.runs.example.com", "runs", id="a wildcard further down"),
        pytest.param("runs.example.com", "wild", id="which is not for its parent"),
        pytest.param(".example.com", "wild", id="an empty label"),
        pytest.param("shop.test", "shop", id="a custom domain"),
        pytest.param("xn--bcher-kva.test", "shop", id="in other scripts"),
        pytest.param("elsewhere.test", "first", id="nobody's"),
        pytest.param("", "first", id="an empty name"),
        pytest.param("*", "first", id="a star"),
        pytest.param("*.example.com", "wild", id="a star is a label like others"),
        pytest.param(None, "first", id="no name"),
    ],
)
def test_the_certificate_of_a_name(name: str | None, expected: str) -> None:
    """By its names; the first is everybody's."""
    table = NameTable(
        [
            (certificate("first.test"), "first"),
            (certificate("*.example.com"), "wild"),
            (certificate("example.com", "*.Example.com"), "own"),
            (certificate("www.example.com"), "www"),
            (certificate("*.runs.example.com"), "runs"),
            (certificate("Shop.test.", "xn--bcher-kva.test"), "shop"),
        ],
        NOW,
    )
    assert table.look(name) == expected


def test_of_two_for_one_name_the_one_that_holds_serves() -> None:
    """Else the first given."""
    old, new, later = certificate("a.test", days=-1), certificate("a.test"), certificate("a.test", days=99)
    early = certificate("a.test", age_days=-1)
    assert NameTable([(old, "old"), (early, "early"), (new, "new"), (later, "later")], NOW).look("a.test") == "new"
    assert NameTable([(old, "old"), (early, "early")], NOW).look("a.test") == "old"


@pytest.mark.parametrize(
    ("days", "words"),
    [
        pytest.param(90, None, id="long"),
        pytest.param(14, None, id="fourteen days"),
        pytest.param(13.9, "in 14 days", id="less than that"),
        pytest.param(1, "in 1 day:", id="a day"),
        pytest.param(0.1, "in 1 day:", id="some hours"),
        pytest.param(0, "expired on 2026-06-01", id="now"),
        pytest.param(-3, "expired on 2026-05-29", id="over"),
    ],
)
def test_expiry_warning(days: float, words: str | None) -> None:
    """From two weeks before the end on, with what to do."""
    warning = expiry_warning(certificate("a.test", days=days), NOW)
    assert warning is None if words is None else words in str(warning)
